//! What travels between Capstan's programs and their clients: wire types, error codes, and a small HTTP client.
//!
//! The data plane ([`message`], [`envelope`], [`error`]) has the form of Cloudflare Queues' REST API; what Capstan
//! adds is marked *extension*. The control plane ([`control`]) is how the operator and local mode declare policies
//! to a broker. [`workload`] is what a sidecar learns about the Consumers of its pod.
//!
//! Nothing here knows how a broker stores a message, and nothing here knows Kubernetes.

mod bounded;
pub mod client;
pub mod control;
mod control_client;
pub mod envelope;
pub mod error;
pub mod idempotency;
pub mod limits;
pub mod message;
pub mod name;
pub mod number;
pub mod object;
pub mod workload;

pub use client::{Client, ClientError};
pub use control_client::ControlClient;
pub use error::ErrorCode;
pub use idempotency::IdempotencyKey;
pub use name::{InvalidName, Name};

/// The port of the broker's HTTP API (the client Service maps port 80 to it).
pub const BROKER_PORT: u16 = 9796;
/// The port of the broker's health checks, metrics and control API.
pub const BROKER_ADMIN_PORT: u16 = 9795;
/// The default port of the sidecar's probes, hooks and metrics, on the pod's address.
pub const SIDECAR_ADMIN_PORT: u16 = 9798;
/// The default port of the sidecar's producer gateway, on localhost.
pub const SIDECAR_GATEWAY_PORT: u16 = 9797;
