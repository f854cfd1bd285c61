//! Capstan on a real cluster: installed by its charts, with pods that really run. `cargo xtask test --level node` runs these.
//!
//! Each test has a namespace of its own, and the tests take turns: what the charts install belongs to the whole cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod broker;
mod charts;
mod consumer;
mod endings;
mod fixture;
mod keda;
mod lost;
mod mishaps;
mod moves;
mod quickstart;
mod scaling;
mod status;
mod subject;
mod timeline;
mod uninstall;
mod upgrade;
mod workers;
