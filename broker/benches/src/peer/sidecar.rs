//! The real sidecar beside the broker: its policy, its environment, its process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use capstan_api::control::PushPolicy;
use capstan_api::workload::{Endpoint, Workload, WorkloadKind};
use rustix::process::Signal;

use super::capstan::{NAMESPACE, as_it_comes};
use super::{free_address, tail};
use crate::cell::Consumers;
use crate::process::Process;

/// Bytes of bodies in a batch: more than any of the benchmark's has.
const BATCH_BYTES: u32 = 1 << 20;
/// Longest call of the application, in milliseconds.
const TIMEOUT_MS: u64 = 10_000;

/// A sidecar. Killed when dropped.
pub(super) struct Sidecar {
    process: Process,
    log: PathBuf,
}

impl Sidecar {
    /// Starts it for the broker at `broker`; its log is in `folder`.
    ///
    /// # Errors
    /// There is no such program, or no free port.
    pub(super) fn start(program: &Path, folder: &Path, broker: SocketAddr) -> Result<Self> {
        let log = folder.join("sidecar.log");
        let file = File::create(&log)?;
        let (admin, gateway) = (free_address()?.port(), free_address()?.port());
        let mut command = Command::new(program);
        as_it_comes(&mut command);
        command
            .env("CAPSTAN_BROKER_URL", format!("http://{broker}"))
            .env("CAPSTAN_NAMESPACE", NAMESPACE)
            .env("CAPSTAN_WORKLOAD", workload().to_string())
            .env("CAPSTAN_POD", "bench-0")
            .env("CAPSTAN_ADMIN_PORT", admin.to_string())
            .env("CAPSTAN_GATEWAY_PORT", gateway.to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self { process: Process::spawn(&mut command, Signal::KILL)?, log })
    }

    /// Processor seconds.
    pub(super) fn cpu(&self) -> f64 {
        self.process.cpu()
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        tail(&self.log)
    }
}

/// How the sidecar consumes: as clients that pull directly do, which do not wait for a batch to fill.
///
/// # Errors
/// The numbers are too large.
pub(super) fn policy(application: SocketAddr, consumers: Consumers) -> Result<PushPolicy> {
    Ok(PushPolicy {
        workload: workload(),
        endpoint: Endpoint { port: application.port(), path: "/".to_owned(), timeout_ms: TIMEOUT_MS },
        max_batch_size: consumers.batch.try_into()?,
        max_batch_bytes: BATCH_BYTES,
        max_wait_ms: 0,
        concurrency_per_pod: consumers.count.try_into()?,
    })
}

fn workload() -> Workload {
    Workload { kind: WorkloadKind::Deployment, name: "bench".to_owned() }
}
