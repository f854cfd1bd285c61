//! The operator on a real API server whose pods never run. `cargo xtask test --level api-server` runs these.
//!
//! Each test has a namespace, an operator with the rights of the chart, and a broker of its own, and the tests take turns:
//! an operator works on the whole cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod absent;
mod admission;
mod answers;
mod brokers;
mod charts;
mod consumers;
mod contest;
mod definitions;
mod election;
mod failures;
mod field;
mod fixture;
mod fleet;
mod matrix;
mod names;
mod namespaces;
mod policy;
mod programs;
mod queues;
mod quickstart;
mod random_order;
mod reach;
mod reasons;
mod restart;
mod rights;
mod rolling;
mod rules;
mod scaling;
mod stage;
mod trials;
