//! The programs as processes: crashes, restarts, bad input, other people's clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod connections;
mod crash;
mod durable;
mod fixture;
mod full;
mod input;
mod ports;
mod restart;
mod sdk;
mod waiting;
