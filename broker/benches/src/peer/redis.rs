//! Redis: synced before each reply, no snapshots.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::client::Resp;

pub(super) fn command(folder: &Path, listen: SocketAddr, rewrites: bool) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", &listen.ip().to_string(), "--port", &listen.port().to_string()]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir"]).arg(folder);
    if !rewrites {
        command.args(["--auto-aof-rewrite-percentage", "0"]);
    }
    command
}

pub(super) async fn declare(address: SocketAddr, queues: usize) -> Result<()> {
    let mut resp = Resp::connect(address).await?;
    for queue in 0..queues {
        resp.command(&[b"XGROUP", b"CREATE", format!("q{queue}").as_bytes(), b"g", b"0", b"MKSTREAM"]);
    }
    resp.flush(queues).await.map(drop)
}
