//! The real programs as child processes on ports of their own choice, killed when a test is done with them.

mod broker;
mod clients;
mod clock;
mod dev;
mod pod;
mod program;

pub use broker::{Broker, Killer, Starting};
pub use clients::{go, node, python};
pub use clock::Clock;
pub use dev::Dev;
pub use pod::Pod;
pub use program::{Log, program, progress};
