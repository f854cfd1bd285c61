//! What the tests with real processes and real clusters share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod cluster;
pub mod document;
pub mod process;
