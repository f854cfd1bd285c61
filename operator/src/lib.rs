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
//! | `CAPSTAN_LEASE_NAMESPACE` | `--lease-namespace` | namespace of the operator and its Lease `capstan-operator`; without it there is no election, and brokers' admin ports admit everyone |
//! | `CAPSTAN_POD` | `--identity` | name in the Lease and in Events |
//! | `CAPSTAN_LISTEN` | `--listen` | address of `/healthz` and `/readyz`, `0.0.0.0:8080` |
//! | `CAPSTAN_BROKER_CONTROL_URL` | `--broker-control-url` | where a Broker's control API is; `{broker}`, `{namespace}` |
//! | `CAPSTAN_POLL_MS` | `--poll-ms` | how often brokers are looked at, 5000 |
//! | `CAPSTAN_BROKER_UPGRADES` | `--broker-upgrades` | Brokers whose pods may be away at once because of a new version, 1 |
//! | `CAPSTAN_CONCURRENCY` | `--concurrency` | units reconciled at once, 16 |
//! | `CAPSTAN_LOG` | | log level or filter, `info` |
//! | `KUBECONFIG` | | the cluster, outside of one |
//!
//! # What it may do
//!
//! The verbs that are used, no more:
//!
//! | API group | resources | verbs | for |
//! |---|---|---|---|
//! | capstan.dev | brokers, queues | get, list, watch, create | what is asked for; Broker `default`; missing dead-letter queues |
//! | capstan.dev | consumers | get, list, watch | what is asked for |
//! | capstan.dev | brokers/status, queues/status, consumers/status | patch | status |
//! | capstan.dev | brokers/finalizers | update | owner references, where OwnerReferencesPermissionEnforcement is on |
//! | apps | statefulsets | get, list, watch, create, patch, delete | Brokers, targets; a Broker's is made anew, without its pod, when its volume grew |
//! | apps | deployments | get, list, watch, patch | targets |
//! | (core) | services | get, list, watch, create, patch | Brokers |
//! | (core) | serviceaccounts | get, list, watch, create, patch | Brokers; with which Secrets a namespace pulls images |
//! | networking.k8s.io | networkpolicies | get, list, watch, create, patch, delete | Brokers; whether others guard them |
//! | (core) | persistentvolumeclaims | get, patch | growth of Brokers' volumes |
//! | storage.k8s.io | storageclasses | get | whether a volume may grow |
//! | (core) | pods | list | which pods of a target have the sidecar, while it rolls out; why a broker does not answer |
//! | (core) | nodes | get | whether the node of such a broker is lost |
//! | events.k8s.io | events | create, patch | changes of conditions |
//! | coordination.k8s.io | leases, in its own namespace | get, create, patch | one active operator |
//!
//! Applying creates, so `create` is needed wherever an object may be missing; targets are never created.

mod api;
mod applied;
mod broker;
pub mod condition;
pub mod config;
mod contest;
mod context;
mod counts;
mod events;
mod health;
mod leader;
mod limiter;
mod names;
mod pod;
mod reach;
mod run;
mod status;
pub mod work;
mod workload;
pub mod world;

pub use run::run;
