//! The operator's configuration: read once, from the command line or the environment.

use std::net::SocketAddr;

use capstan_crds::Key;

/// Reconciles Capstan's Brokers, Queues and Consumers.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Image of brokers.
    #[arg(long, env = "CAPSTAN_BROKER_IMAGE", default_value = concat!("capstan/broker:", env!("CARGO_PKG_VERSION")))]
    pub broker_image: String,
    /// imagePullPolicy of brokers.
    #[arg(long, env = "CAPSTAN_BROKER_PULL_POLICY", default_value = "IfNotPresent")]
    pub broker_pull_policy: String,
    /// Image of sidecars.
    #[arg(long, env = "CAPSTAN_SIDECAR_IMAGE", default_value = concat!("capstan/sidecar:", env!("CARGO_PKG_VERSION")))]
    pub sidecar_image: String,
    /// imagePullPolicy of sidecars.
    #[arg(long, env = "CAPSTAN_SIDECAR_PULL_POLICY", default_value = "IfNotPresent")]
    pub sidecar_pull_policy: String,
    /// Namespace of the Lease by which one of several operators is active; no election without it.
    #[arg(long, env = "CAPSTAN_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of this operator in the Lease and in Events.
    #[arg(long, env = "CAPSTAN_POD", default_value = "capstan-operator")]
    pub identity: String,
    /// Address of health checks.
    #[arg(long, env = "CAPSTAN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where the control API of a Broker is; {broker} and {namespace} are filled in.
    #[arg(
        long,
        env = "CAPSTAN_BROKER_CONTROL_URL",
        default_value = "http://capstan-{broker}-0.capstan-{broker}-pods.{namespace}.svc:9795"
    )]
    pub broker_control_url: String,
    /// How often brokers are looked at, in milliseconds.
    #[arg(long, env = "CAPSTAN_POLL_MS", default_value_t = 5000)]
    pub poll_ms: u64,
    /// Brokers whose pods may be away at once, over the whole cluster, because of a new version.
    #[arg(long, env = "CAPSTAN_BROKER_UPGRADES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub broker_upgrades: u16,
    /// Units reconciled at once.
    #[arg(long, env = "CAPSTAN_CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
}

impl Config {
    /// The address of a Broker's control API.
    #[must_use]
    pub fn control_url(&self, broker: &Key) -> String {
        self.broker_control_url.replace("{broker}", &broker.name).replace("{namespace}", &broker.namespace)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    /// The configuration of an operator that nobody configured.
    pub(crate) fn config() -> Config {
        <Cli as clap::Parser>::parse_from(["operator"]).config
    }

    #[test]
    fn a_broker_is_reached_through_its_pod() {
        assert_eq!(
            config().control_url(&Key::new("shop", "default")),
            "http://capstan-default-0.capstan-default-pods.shop.svc:9795"
        );
    }
}
