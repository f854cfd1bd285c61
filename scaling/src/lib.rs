//! How many pods the Consumers of a workload should have. Pure: no clock, no I/O, no Kubernetes.
//!
//! Times are durations since any start that all calls share, so that a simulation decides as the operator does.

mod calls;
mod combine;
mod memory;
pub mod patience;
mod rule;

pub use calls::{Calls, Outcomes, WINDOW};
pub use combine::{Vote, combine};
pub use memory::{Decision, Limit, Memory, STEP_EVERY};
pub use rule::{Demand, Rule};
