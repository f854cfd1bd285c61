//! Capstan beside its peers, measured in one run by one client: `cargo xtask bench`.
#![allow(unreachable_pub, reason = "the library is there for its tests")]

pub mod application;
pub mod ceiling;
pub mod cell;
pub mod client;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod message;
pub mod noise;
pub mod peer;
pub mod process;
pub mod report;
pub mod run;
pub mod stats;
