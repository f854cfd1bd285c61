//! The operator: keeps the cluster, and the brokers in it, as the Queues, Consumers and Brokers say.
//!
//! [`world`] is what the cluster has, [`work`] which part of it is looked at next, and every part is reconciled by one
//! pipeline: dereference (look up what it names) → validate → build (pure) → apply → status. Nothing is remembered that
//! a look at the cluster would not tell: a restart changes nothing. There are no finalizers; what is gone is learnt by
//! comparing lists.
//!
//! # Configuration
//!
//! | variable | flag | meaning |
//! |---|---|---|
//! | `CAPSTAN_BROKER_IMAGE`, `CAPSTAN_BROKER_PULL_POLICY` | `--broker-image`, `--broker-pull-policy` | image of brokers |
//! | `CAPSTAN_SIDECAR_IMAGE`, `CAPSTAN_SIDECAR_PULL_POLICY` | `--sidecar-image`, `--sidecar-pull-policy` | image of sidecars |
//! | `CAPSTAN_WATCH_NAMESPACES` | `--watch-namespaces` | the namespaces that it works in, by commas; all without it |
//! | `CAPSTAN_LEASE_NAMESPACE` | `--lease-namespace` | namespace of the operator and its Lease `capstan-operator`; without it there is no election, and brokers' admin ports admit everyone |
//! | `CAPSTAN_POD` | `--identity` | name in the Lease and in Events |
//! | `CAPSTAN_LISTEN` | `--listen` | address of `/healthz`, `/readyz` and `/metrics`, `0.0.0.0:8080` |
//! | `CAPSTAN_EXTERNAL_SCALER_LISTEN` | `--external-scaler-listen` | address of KEDA's external scaler; not served without it |
//! | `CAPSTAN_BROKER_CONTROL_URL` | `--broker-control-url` | where a Broker's control API is; `{broker}`, `{namespace}` |
//! | `CAPSTAN_ADMISSION_POLICY` | `--admission-policy` | the policy by which pods get their sidecar; none: by the pod template |
//! | `CAPSTAN_POLL_MS` | `--poll-ms` | how often brokers are looked at, 5000 |
//! | `CAPSTAN_BROKER_UPGRADES` | `--broker-upgrades` | Brokers whose pods may be away at once because of a new version, 1 |
//! | `CAPSTAN_CONCURRENCY` | `--concurrency` | units reconciled at once, 16 |
//! | `CAPSTAN_LOG` | | log level or filter, `info` |
//! | `KUBECONFIG` | | the cluster, outside of one |
//!
//! # What it may do
//!
//! [`rights`] lists every verb, with its reason; the roles of the chart are made from it.

mod api;
mod applied;
mod broker;
pub mod check;
mod client;
pub mod condition;
pub mod config;
mod contest;
mod context;
mod counts;
mod definitions;
mod demand;
mod election;
mod events;
mod external_scaler;
mod health;
mod leader;
mod limiter;
mod metrics;
mod mode;
mod reach;
mod request;
pub mod rights;
mod run;
mod scaling;
mod status;
pub mod uninstall;
pub mod work;
mod workload;
pub mod world;

use capstan_crds::names;
use capstan_inject::pod;
pub use check::check;
pub use run::run;
pub use uninstall::uninstall;
