//! The bounds of the wire, in one place. Units are bytes, seconds or milliseconds as named.

/// Longest queue or namespace name.
pub const NAME_LENGTH_MAX: usize = 63;
/// Largest message body a queue takes unless its policy says otherwise (Cloudflare: 128 KB, 1 KB = 1000 B).
pub const MESSAGE_BYTES_DEFAULT: u32 = 128_000;
/// Largest value a queue's policy may set for a message body (extension).
pub const MESSAGE_BYTES_MAX: u32 = 1_048_576;
/// Most arrays and objects inside each other in a `json` body (extension). An application gets them inside three more, and
/// common parsers stop at 100 of their own accord (Ruby), 127 (`serde_json`), 512 (PHP), 1,000 (Java, Python).
pub const JSON_DEPTH_MAX: usize = 96;
/// Most messages in one batch, sent or pulled.
pub const BATCH_COUNT_MAX: usize = 100;
/// Most body bytes in one sent batch of a queue with the default message limit (Cloudflare: 256 KB).
pub const BATCH_BYTES_DEFAULT: usize = 256_000;
/// Messages in a pull that names no `batch_size`.
pub const PULL_BATCH_DEFAULT: u16 = 5;
/// Most body and attribute bytes of one pull's or peek's answer, but always one message; further ones come with the next.
pub const PULL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Longest delay of a send or a retry: 24 hours.
pub const DELAY_SECONDS_MAX: u32 = 86_400;
/// Lease of a pull that names none, when the consumer's policy names none either.
pub const VISIBILITY_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Longest lease: 12 hours.
pub const VISIBILITY_TIMEOUT_MS_MAX: u64 = 43_200_000;
/// Longest time a pull gathers after its first ready message (extension).
pub const WAIT_MS_MAX: u64 = 60_000;
/// Longest time a pull waits for a first ready message (extension).
pub const IDLE_MS_MAX: u64 = 60_000;
/// Most attributes of a message (extension).
pub const ATTRIBUTES_MAX: usize = 16;
/// Longest attribute name (extension).
pub const ATTRIBUTE_NAME_MAX: usize = 64;
/// Most bytes of all attribute names and values of a message together (extension).
pub const ATTRIBUTE_BYTES_MAX: usize = 4096;
/// Longest idempotency key (extension).
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// How long a send is known by its idempotency key, while there is a broker (extension).
pub const IDEMPOTENCY_WINDOW_SECONDS: u64 = 300;
/// Most sends of a queue that are known by their idempotency keys at once (extension).
pub const IDEMPOTENCY_KEYS_MAX: u64 = 1_000_000;
/// The same, of all queues of a broker (extension).
pub const IDEMPOTENCY_KEYS_ALL_MAX: u64 = 2_000_000;
/// Most lease ids in one `messages/ack` or `messages/extend`, all lists together.
pub const SETTLE_COUNT_MAX: usize = 1000;
/// Longest reason of a retry that is kept (extension); longer ones are cut.
pub const REASON_BYTES_MAX: usize = 256;
/// Most deliveries after the first.
pub const RETRIES_MAX: u32 = 100;
/// Most releases of one message that cost no attempt. From the eleventh on it waits before it is ready again, up to a minute.
pub const RELEASES_MAX: u32 = 1000;
/// Most batches at once, of a consumer or of one of its pods (Cloudflare: 250 invocations).
pub const CONCURRENCY_MAX: u64 = 250;
/// Most queues of one declaration.
pub const QUEUES_MAX: usize = 10_000;
/// Most bytes of a data-plane request that is no send.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of JSON for one byte of a body: a third more as base64, each character of that written as `\u0041`.
const JSON_BYTES_PER_BYTE: usize = 8;
/// Most bytes of a message's JSON beside its body: attributes written in that way, and the names of all fields.
const JSON_BYTES_BESIDE: usize = 6 * ATTRIBUTE_BYTES_MAX + 1024;
/// Most bytes of a declaration.
pub const DECLARATION_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(MESSAGE_BYTES_DEFAULT < MESSAGE_BYTES_MAX);

/// Most body bytes in one batch for a queue of this message limit: always two of the largest.
#[must_use]
pub const fn batch_bytes_max(message_bytes_max: u32) -> usize {
    let two = 2 * message_bytes_max as usize;
    if two > BATCH_BYTES_DEFAULT { two } else { BATCH_BYTES_DEFAULT }
}

/// Most bytes of a send to a queue of this message limit: whatever a batch may hold fits, however its JSON is escaped. Only
/// whitespace and unknown fields can make it larger.
#[must_use]
pub const fn send_bytes_max(message_bytes_max: u32) -> usize {
    JSON_BYTES_PER_BYTE * batch_bytes_max(message_bytes_max) + BATCH_COUNT_MAX * JSON_BYTES_BESIDE
}
