//! The network of a cluster: a namespace for each node, joined by a bridge in the first, none with a way out.

use std::process::Command;

use anyhow::Result;

use super::component::inside;
use super::place::{NODES_MAX, Place, SERVICE_CIDR, node_address, pod_cidr};
use crate::run;

/// The device of a node; on the first one it is the bridge that the others are plugged into.
const DEVICE: &str = "node0";

/// Makes the namespaces of `nodes` nodes, at least the first: the control plane lives there.
///
/// # Errors
/// Not root, or `ip` is missing.
pub fn make(place: &Place, nodes: u8) -> Result<()> {
    for node in 0..nodes.max(1) {
        make_node(place, node)?;
        for other in (0..nodes).filter(|other| *other != node) {
            // There is no default route: what is not in these networks is unreachable.
            ip(place, node, &["route", "add", &pod_cidr(other), "via", &node_address(other)])?;
        }
    }
    Ok(())
}

fn make_node(place: &Place, node: u8) -> Result<()> {
    run::output(Command::new("ip").args(["netns", "add", &place.namespace(node)]))?;
    ip(place, node, &["link", "set", "lo", "up"])?;
    if node == 0 {
        ip(place, 0, &["link", "add", DEVICE, "type", "bridge"])?;
    } else {
        let (first, plug) = (place.namespace(0), plug(node));
        let own = place.namespace(node);
        let pair =
            ["link", "add", DEVICE, "netns", &own, "type", "veth", "peer", "name", &plug, "netns", &first];
        run::output(Command::new("ip").args(pair))?;
        ip(place, 0, &["link", "set", &plug, "master", DEVICE, "up"])?;
    }
    ip(place, node, &["addr", "add", &format!("{}/24", node_address(node)), "dev", DEVICE])?;
    ip(place, node, &["link", "set", DEVICE, "up"])?;
    // Without a route to it, a Service's address never reaches the rules that rewrite it.
    ip(place, node, &["route", "add", SERVICE_CIDR, "dev", DEVICE])?;
    run::output(inside(place, node, "sh").args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])).map(drop)
}

/// Takes a node off the network, or puts it back.
///
/// # Errors
/// There is no such node.
pub fn plug_in(place: &Place, node: u8, is_on: bool) -> Result<()> {
    ip(place, 0, &["link", "set", &plug(node), if is_on { "up" } else { "down" }])
}

/// Removes the namespaces of all nodes, and what is plugged into them.
///
/// # Errors
/// One stays.
pub fn remove(place: &Place) -> Result<()> {
    let mut left = (0..NODES_MAX).filter(|node| place.namespace_file(*node).exists());
    left.try_for_each(|node| {
        run::output(Command::new("ip").args(["netns", "del", &place.namespace(node)])).map(drop)
    })
}

fn plug(node: u8) -> String {
    format!("to-{node}")
}

fn ip(place: &Place, node: u8, arguments: &[&str]) -> Result<()> {
    run::output(inside(place, node, "ip").args(arguments)).map(drop)
}
