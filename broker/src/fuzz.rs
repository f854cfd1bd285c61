//! Doors for `cargo fuzz`, built only by it: what reads bytes from outside.

pub use crate::http::fuzz::{request, token};
pub use crate::store::fuzz::record;
