//! The programs as processes: crashes, restarts, bad input, other people's clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod application;
mod attributes;
mod changes;
mod clock;
mod concurrency;
mod conformance;
mod connections;
mod crash;
mod damage;
mod deletion;
mod durable;
mod examples;
mod fixture;
mod frozen;
mod full;
mod gateway;
mod heads;
mod idempotency;
mod input;
mod memory;
mod outage;
mod pods;
mod polls;
mod ports;
mod purge;
mod restart;
mod sdk;
mod slow;
mod taken;
mod unreachable;
mod unread;
mod waiting;
mod wire;
mod workers;
