//! What there is to do in each queue, by one event stream to each Broker that somebody scales by.
//!
//! [`Streams::run`] keeps a long poll open to every Broker that push Consumers have their Queue on, or that was asked about in
//! the last ten minutes. [`Streams::queue`] says what a Broker said last of a queue, or since when it has not been heard. Nothing here is written anywhere: every replica of the operator has streams of its own.

mod backlog;
mod known;
mod listen;
mod streams;

pub(crate) use known::Sight;
pub(crate) use streams::Streams;

#[cfg(test)]
pub(crate) use streams::tests as stage;
