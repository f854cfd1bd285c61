//! What there is to do for each Consumer, for who scales by other means than `spec.scaling`: over gRPC for KEDA, as its external
//! scaler, and as metrics.
//!
//! It only tells what is known, so that every replica of the operator serves it. Nothing is ever told that is not known: KEDA
//! then holds, or does what `fallback` says.

mod collector;
mod incoming;
mod place;
mod serve;
mod service;
mod source;
mod trigger;

#[rustfmt::skip]
#[allow(unreachable_pub, clippy::pedantic, reason = "as tonic generates it")]
mod generated;

use capstan_crds::Key;
use capstan_scaling::Demand;
use tokio::sync::watch;

pub(crate) use collector::{Demanded, Numbers};
pub(crate) use place::Unseen;
pub(crate) use serve::serve;
pub(crate) use source::Source;

/// What the external scaler is asked about.
pub(crate) trait Demands: Send + Sync + 'static {
    /// What there is to do for a push or pull Consumer.
    ///
    /// # Errors
    /// Nothing is known: why.
    fn of(&self, consumer: &Key) -> Result<Demand, Unseen>;

    /// Changes whenever any demand may have changed.
    fn changed(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use collector::tests::Many;
