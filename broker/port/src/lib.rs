//! An HTTP port that clients cannot exhaust: connections, bodies and paths within bounds, refusals in the envelope.
//!
//! The broker's two ports and the sidecar's gateway are made of it, so that a client finds the same limits and the same
//! answers at each. [`connections`] serves a router, [`body`] reads what a request brings, [`path`] what its address says,
//! and [`Refused`] is how all of them say no.

pub mod body;
pub mod connections;
pub mod path;
mod refused;

pub use refused::{Refused, no_route, not_allowed};
