//! The numbers by which the core names things.

/// Milliseconds since 1970, or a length of time in milliseconds.
pub type Millis = u64;

/// A queue of this store; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// A message's place in the order in which its queue took it, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A place in the order in which messages came back, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub u64);

impl Order {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Who leases messages, as the caller numbers them. Only worth remembering: a core that was just opened knows nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

impl Holder {
    /// Nobody said who it is.
    pub const UNKNOWN: Self = Self(0);
}

/// A message's name, kept when it moves to a dead-letter queue: seed of the store, first queue, first sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    pub(crate) fn new(seed: u32, queue: QueueId, seq: Seq) -> Self {
        Self((u128::from(seed) << 96) | (u128::from(queue.0) << 64) | u128::from(seq.0))
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Spreads the bits of a number: deterministic noise for jitter and lease nonces (the finalizer of splitmix64).
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
