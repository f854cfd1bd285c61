//! Runs the real program, as a user does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod application;
mod client;
mod dev;
mod help;
mod inject;
mod refused;
mod support;
