//! Whether the container's memory limit holds what the Consumers may ask for: better said before than by the kernel.

use capstan_api::workload::WorkloadConsumer;

use crate::slot::slots_of;

/// Where control groups say what limits this process, of either version.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// What a sidecar needs beside its batches, in bytes.
const BASE: u64 = 16 << 20;
/// How often a batch is in memory, with what its pieces take besides.
const COPIES: u64 = 2;

/// Warns when the limit may not hold.
pub(crate) fn check(policies: &[WorkloadConsumer], gateway: u64) {
    let Some(limit) = LIMITS.iter().find_map(|file| std::fs::read_to_string(file).ok()) else { return };
    // "max" is none.
    let Ok(limit) = limit.trim().parse::<u64>() else { return };
    let need = need(policies, gateway);
    if need > limit {
        tracing::warn!(
            limit_mib = limit >> 20,
            need_mib = need.div_ceil(1 << 20),
            gateway_mib = gateway >> 20,
            "full batches in all calls at once, and a full gateway, would not fit into the memory limit: raise \
             sidecar.resources.limits.memory, or lower concurrencyPerPod or maxBatchBytes"
        );
    }
}

/// What full batches in all slots need, in bytes, beside a gateway that may hold `gateway`.
fn need(policies: &[WorkloadConsumer], gateway: u64) -> u64 {
    let batches = policies.iter().map(|policy| slots_of(policy) as u64 * u64::from(policy.max_batch_bytes));
    BASE + gateway + COPIES * batches.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use capstan_api::Name;
    use capstan_api::workload::Endpoint;

    use super::*;
    use crate::gateway::{Gateway, Settings};

    fn policy(concurrency_per_pod: u16, max_batch_bytes: u32) -> WorkloadConsumer {
        let name = Name::new("orders").unwrap();
        WorkloadConsumer {
            namespace: name.clone(),
            queue: name.clone(),
            name,
            endpoint: Endpoint { port: 1, path: "/".to_owned(), timeout_ms: 1000 },
            max_batch_size: 100,
            max_batch_bytes,
            max_wait_ms: 0,
            concurrency_per_pod,
            visibility_timeout_ms: 1000,
            paused: false,
        }
    }

    #[test]
    fn the_default_limit_holds_six_calls_of_the_largest_batches_and_forty_nine_of_the_usual_ones() {
        let (limit, gateway) = (64 << 20, gateway_bytes());
        for (concurrency, bytes, holds) in
            [(6, 2 << 20, true), (7, 2 << 20, false), (49, 256_000, true), (50, 256_000, false)]
        {
            let need = need(&[policy(concurrency, bytes)], gateway);
            assert_eq!(need <= limit, holds, "{concurrency} × {bytes}: {need}");
        }
        let many = [policy(49, 256_000), policy(49, 256_000)];
        assert!(need(&many, gateway) > limit, "each Consumer counts");
        assert!(need(&many, 0) > need(&many[1..], 0));
    }

    /// Of one with the usual settings.
    fn gateway_bytes() -> u64 {
        let (namespace, settings) = (Name::new("shop").unwrap(), Settings { port: 0, ..Settings::default() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gateway = runtime.block_on(Gateway::bind("http://127.0.0.1:1", namespace, &settings)).unwrap();
        gateway.metrics().most_bytes()
    }
}
