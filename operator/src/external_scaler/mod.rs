//! KEDA's external scaler: what there is to do for each Consumer, over gRPC, for who scales by a ScaledObject instead of by
//! `spec.scaling`.
//!
//! It only tells what is known, so that every replica of the operator serves it. Nothing is ever told that is not known: KEDA
//! then holds, or does what `fallback` says.

mod incoming;
mod serve;
mod service;
mod trigger;

#[rustfmt::skip]
#[allow(unreachable_pub, clippy::pedantic, reason = "as tonic generates it")]
mod generated;

use capstan_crds::Key;
use capstan_scaling::Demand;
use tokio::sync::watch;

pub(crate) use serve::serve;

use crate::demand::Unseen;

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
