//! The cluster's DNS: CoreDNS on the first node, behind the Service that pods ask.

use std::time::Duration;

use anyhow::{Context, Result};

use super::component::{self, inside};
use super::place::{CONTROL_PLANE, Place};
use super::programs::Programs;
use crate::run;

const NAME: &str = "coredns";
const START: Duration = Duration::from_secs(60);

/// Starts it; returns when it answers.
///
/// # Errors
/// It does not start; shows its log.
pub fn start(place: &Place, programs: &Programs) -> Result<()> {
    let file = place.state().join("Corefile");
    let kubeconfig = place.kubeconfig("dns");
    let text = format!(
        ".:53 {{\n  bind {CONTROL_PLANE}\n  errors\n  ready {CONTROL_PLANE}:8181\n  kubernetes cluster.local {{\n    kubeconfig {}\n  }}\n  cache 2\n}}\n",
        kubeconfig.display()
    );
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    component::start(place, NAME, inside(place, 0, programs.path(NAME)).arg("-conf").arg(&file))?;
    let ask = format!(
        "exec 3<>/dev/tcp/{CONTROL_PLANE}/8181 && printf 'GET /ready HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3"
    );
    component::wait(place, NAME, START, || run::output(inside(place, 0, "bash").args(["-c", &ask])).is_ok())
}
