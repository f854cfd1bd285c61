//! The operator's configuration: read once, from the command line or the environment.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use capstan_crds::Key;
use capstan_inject::Images;

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
    /// The namespaces to work in, separated by commas; all without it.
    #[arg(long, env = "CAPSTAN_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Namespace of the Lease by which one of several operators is active; no election without it.
    #[arg(long, env = "CAPSTAN_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of this operator in the Lease and in Events.
    #[arg(long, env = "CAPSTAN_POD", default_value = "capstan-operator")]
    pub identity: String,
    /// Address of health checks and metrics.
    #[arg(long, env = "CAPSTAN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of the external scaler that KEDA asks, over gRPC without TLS; not served without it.
    #[arg(long, env = "CAPSTAN_EXTERNAL_SCALER_LISTEN")]
    pub external_scaler_listen: Option<SocketAddr>,
    /// Whether `scaling` of Consumers is followed. With `false` the operator sets no workload's number of pods, and needs no rights for it.
    #[arg(long, env = "CAPSTAN_SCALING", default_value_t = true, action = clap::ArgAction::Set)]
    pub scaling: bool,
    /// Where the control API of a Broker is; {broker} and {namespace} are filled in.
    #[arg(
        long,
        env = "CAPSTAN_BROKER_CONTROL_URL",
        default_value = "http://capstan-{broker}-0.capstan-{broker}-pods.{namespace}.svc:9795"
    )]
    pub broker_control_url: String,
    /// The MutatingAdmissionPolicy, and its binding of the same name, by which pods get their sidecar. Without it, or where
    /// the cluster does not have it, sidecars stand in pod templates.
    #[arg(long, env = "CAPSTAN_ADMISSION_POLICY")]
    pub admission_policy: Option<String>,
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
    /// The image of sidecars.
    #[must_use]
    pub fn sidecar_images(&self) -> Images {
        Images { sidecar: self.sidecar_image.clone(), pull_policy: self.sidecar_pull_policy.clone() }
    }

    /// Where objects are watched: in these namespaces, or in all.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<String>> {
        let names = self.watch_namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        let names: BTreeSet<&str> = names.collect();
        if names.is_empty() {
            vec![None]
        } else {
            names.into_iter().map(|name| Some(name.to_owned())).collect()
        }
    }

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
    fn it_works_everywhere_unless_namespaces_are_named() {
        let scopes = |value: &str| {
            <Cli as clap::Parser>::parse_from(["operator", "--watch-namespaces", value]).config.scopes()
        };
        assert_eq!(config().scopes(), [None]);
        assert_eq!(scopes(""), [None]);
        assert_eq!(scopes("shop, bank,,shop"), [Some("bank".to_owned()), Some("shop".to_owned())]);
    }

    #[test]
    fn a_broker_is_reached_through_its_pod() {
        assert_eq!(
            config().control_url(&Key::new("shop", "default")),
            "http://capstan-default-0.capstan-default-pods.shop.svc:9795"
        );
    }
}
