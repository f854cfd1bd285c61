//! Every bound of the core.

/// Most leased messages of one queue; what is leased is held in memory.
pub const LEASED_MAX: u64 = 120_000;
/// Most leased messages of all queues.
pub const LEASED_ALL_MAX: u64 = 500_000;
/// Most timers, leases or expired messages that one [`crate::Command::Tick`] handles of each.
pub const TICK_STEP: usize = 256;
/// Most bytes of bodies that one command reads only to remove them or to make them ready, but always one message.
pub const BODIES_BYTES: u64 = 4 * 1024 * 1024;
/// Most dead messages that one tick tries to move to their dead-letter queue.
pub const DEAD_STEP: usize = 64;
/// Most bytes of bodies and attributes that one command moves to dead-letter queues, but always one message; the others
/// wait in state *dead* for the next tick.
pub const MOVED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most delayed messages that are known to be due soon, and most timers that one look ahead reads.
pub const AHEAD_MAX: usize = 5_000;
/// How often dead messages try their dead-letter queue again.
pub const DEAD_RETRY_MS: u64 = 1000;
/// Most messages of one pull, send or peek.
pub const BATCH_MAX: usize = 100;
/// Releases of one message that cost no attempt: what no application takes for most of a day is the message's fault.
pub const RELEASES_MAX: u32 = 1000;
/// Of these, so many make it ready at once: most come from pods that end.
pub const RELEASES_PROMPT: u32 = 10;
/// Longest time that a released message waits. Without it, each pod whose application is out of reach would take the same message
/// with each of its trials, and many pods would use up its releases within a minute.
pub const RELEASE_DELAY_MAX_MS: u64 = 60_000;
/// Longest kept reason of a failure, bytes.
pub const REASON_MAX: usize = 256;
/// An outage longer than this moves retention: messages do not expire because the broker was away.
pub const OUTAGE_MIN_MS: u64 = 3_600_000;
/// A shorter gap between living messages is passed over, and not recorded.
pub const GAP_LEAST: u64 = 128;
/// Most gaps that are remembered, of all queues: about so many, as each queue has a share.
pub const GAPS_MAX: usize = 1 << 18;
/// Most recorded gaps of a table of a queue.
pub const GAPS_RECORDED_MAX: usize = 1024;
/// How long a send with an idempotency key is remembered, while there is a broker: five minutes.
pub const SEND_WINDOW_MS: u64 = 300_000;
/// Most remembered sends of a queue. Each takes about 40 bytes of memory and 50 on disk.
pub const SENDS_MAX: u64 = 1_000_000;
/// Most remembered sends of all queues.
pub const SENDS_ALL_MAX: u64 = 2_000_000;
/// Most remembered sends that one [`crate::Command::Tick`] looks at: whoever ticks after each so many sends to a queue forgets
/// as quickly as it sends.
pub const SENDS_STEP: usize = 1024;
/// Of these, so many at once: beyond those that are forgotten they are read in vain.
pub const SENDS_LOOK: usize = 64;
/// Sends are forgotten at most so often, all together whose window is over.
pub const SENDS_FORGOTTEN_EVERY_MS: u64 = 5_000;

/// Bounds that a caller may set otherwise; tests do, to reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// As [`LEASED_ALL_MAX`].
    pub leased_all: u64,
    /// As [`GAP_LEAST`].
    pub gap_least: u64,
    /// As [`GAPS_MAX`].
    pub gaps: usize,
    /// As [`SEND_WINDOW_MS`].
    pub send_window: u64,
    /// As [`SENDS_MAX`].
    pub sends: u64,
    /// As [`SENDS_ALL_MAX`].
    pub sends_all: u64,
    /// As [`AHEAD_MAX`].
    pub ahead: usize,
}

impl Bounds {
    /// Those that are meant to be.
    pub const USUAL: Self = Self {
        leased_all: LEASED_ALL_MAX,
        gap_least: GAP_LEAST,
        gaps: GAPS_MAX,
        send_window: SEND_WINDOW_MS,
        sends: SENDS_MAX,
        sends_all: SENDS_ALL_MAX,
        ahead: AHEAD_MAX,
    };
}
