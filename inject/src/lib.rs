//! What becomes of a workload that Consumers name: the plan, the sidecar, and the two ways in which it gets into pods.
//!
//! Pure: no request is made here. [`plan`] decides from a [`Workload`] and the Consumers that name it. What it decides is
//! brought about by the operator, in one of two modes, or written into a manifest by `capstan inject`:
//!
//! * **Admission**: an admission policy in the API server ([`policy`]) completes pods when they are created. The workload
//!   itself gets one annotation in its pod template, which starts the rollout.
//! * **Template**: the operator applies the container to the workload's pod template ([`Fields`]).

pub mod cel;
mod container;
mod fields;
mod identity;
mod managers;
pub mod manifest;
mod manual;
mod plan;
pub mod pod;
pub mod policy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod workload;

pub use container::{Images, MARGIN_SECONDS, QUIESCE_PATH, drain_seconds, sidecar};
pub use fields::{Fields, Partial};
pub use identity::{Identity, Mark};
pub use plan::{Action, Claimant, Injection, Plan, broker, plan, sort};
pub use workload::{Hook, Workload};
