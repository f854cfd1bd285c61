//! Capstan's custom resources as Rust types, and everything that follows from them without a cluster.
//!
//! [`Queue`], [`Consumer`] and [`Broker`] are the API that users write. [`definitions`] makes the
//! CustomResourceDefinitions from them. [`parse`] reads and checks an object as an API server would: the same
//! defaults, bounds and rules. [`resolve`] turns objects into what a broker is told.
//!
//! Both the operator and local mode work from here, so that a file behaves the same with and without a cluster.

#![allow(clippy::duplicated_attributes, reason = "printer columns repeat their types")]

pub mod broker;
pub mod condition;
pub mod consumer;
mod definition;
mod document;
pub mod duration;
pub mod label;
pub mod names;
mod parse;
mod policy;
pub mod quantity;
pub mod queue;
mod resolve;
pub mod resources;
mod rule;
pub mod scaling;
mod schema;

pub use broker::{Broker, BrokerSpec, BrokerStatus};
pub use consumer::{Consumer, ConsumerSpec, ConsumerStatus};
pub use definition::{definitions, yaml};
pub use duration::Duration;
pub use parse::{Object, ParseError, Parsed, parse, parse_all};
pub use quantity::{ByteSize, Quantity};
pub use queue::{Queue, QueueSpec, QueueStatus};
pub use resolve::{
    Claim, ConsumerFinding, Key, QueueFinding, Resolution, ResolvedConsumer, ResolvedQueue, resolve,
};

/// The API group of all kinds.
pub const GROUP: &str = "capstan.dev";
/// The version of the API.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all objects.
pub const API_VERSION: &str = "capstan.dev/v1alpha1";
/// The Broker of Queues that name none.
pub const BROKER_DEFAULT: &str = "default";
