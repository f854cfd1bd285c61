//! The sidecar: pulls batches, hands them to the application, settles by its answer.
//!
//! A batch's way through the files: `policies` learns from the broker what the workload consumes, `supervisor` keeps one
//! `consumer` for each queue, and its slots (`slot`) each `pull` one batch at a time. `request` writes the batch down,
//! `call` hands it to the application, [`verdict`] decides what becomes of each message, `settle` tells the broker.
//! [`lease`] and [`breaker`] say when to extend and when to leave the application alone. Those three are pure.
//!
//! Beside it, [`gateway`] takes what the application sends. It shares nothing with the loop but the process.
//!
//! Invariants:
//! 1. A message is leased only by a slot that is free to call with it.
//! 2. Each leased message is settled once: acknowledged, retried or released. Only an application that began and failed,
//!    or that asked for it, costs a message an attempt.
//! 3. Memory is bounded by slots × batch bytes, what the gateway may hold, and a constant, whatever broker and application do.

mod admin;
mod backoff;
pub mod breaker;
mod call;
pub mod config;
mod consumer;
mod context;
mod deliver;
pub mod drain;
pub mod event;
mod gate;
pub mod gateway;
pub mod lease;
pub mod loopback;
mod memory;
mod metrics;
mod policies;
mod pull;
mod quiesce;
mod reach;
mod request;
mod seldom;
mod settle;
mod sidecar;
mod slot;
mod supervisor;
pub mod verdict;

pub use config::Config;
pub use event::Event;
pub use sidecar::{Sidecar, SidecarError};
