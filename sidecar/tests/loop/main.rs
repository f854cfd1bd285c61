//! The sidecar between a scripted broker and a scripted application.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod deliver;
mod gateway;
mod lifecycle;
mod outcomes;
mod program;
mod quiesce;
mod reach;
mod real;
mod support;
