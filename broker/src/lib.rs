//! The broker: HTTP API, engine thread and store.
//!
//! Data flows one way: `http` reads a request and makes a command of it, `engine` applies it and commits, `store` keeps
//! it; the answer comes back when it is durable. The core, which decides everything, is the crate `capstan-core`.

mod broker;
mod clock;
pub mod config;
pub mod descriptors;
mod directory;
mod engine;
#[cfg(fuzzing)]
pub mod fuzz;
mod http;
mod policy;
mod stats;
pub mod store;

pub use broker::{Broker, BrokerError};
pub use engine::EngineError;
