// Every limit of the package, in one place.

/** Longest delay of a send or a retry: 24 hours. */
export const DELAY_SECONDS_MAX = 86_400;
/** Most messages of one `sendBatch()`. */
export const SEND_BATCH_MAX = 100;
/** No queue takes a larger body; most take less, and the broker says so. */
export const BODY_BYTES_MAX = 1_048_576;
/** Bytes of requests to the gateway that may be open at once, in this process. */
export const SENDING_BYTES_MAX = 64 * 1024 * 1024;
/** Connections to the gateway. */
export const GATEWAY_SOCKETS_MAX = 64;
/** An idle connection to the gateway is not used again after this time, long before the other side closes it. */
export const GATEWAY_IDLE_MS = 1_000;
/** How long one request to the gateway may take: it holds requests while the broker restarts. */
export const GATEWAY_ANSWER_MS = 70_000;
/** Most bytes of a gateway's answer that are read. */
export const GATEWAY_ANSWER_BYTES_MAX = 1_048_576;
/** How long a send is tried again, from its beginning: far shorter than the five minutes for which a broker knows its key. */
export const SEND_RETRY_MS = 5_000;
/** First pause before a send is tried again; each one is twice as long. */
export const SEND_PAUSE_MS = 100;

/**
 * Largest batch that is read. A Consumer asks for 2 MiB of bodies at most; as JSON, with every character escaped and
 * all attributes, they are no larger than this.
 */
export const BATCH_BYTES_MAX = 16 * 1024 * 1024;
/** Most calls at once: the largest `concurrencyPerPod`. */
export const CALLS_MAX = 250;
/** Bytes of batches that may be held at once. */
export const CALLS_BYTES_MAX = 128 * 1024 * 1024;

/** Largest request that a `fetch` handler gets to read, as for Workers. */
export const FETCH_BYTES_MAX = 100 * 1024 * 1024;
/** Connections that each port takes at once. */
export const CONNECTIONS_MAX = 10_000;
/** Longest time that ending may take. */
export const END_SECONDS_MAX = 43_200;
/** Without another word, ending takes no longer than this: the sidecar's drain has the same default. */
export const END_SECONDS = 25;
/**
 * How long a connection of the sidecar stays open after its last answer when the process ends: the sidecar uses none
 * that was idle for a second, so none of its requests meets a closing connection.
 */
export const LINGER_MS = 1_100;
/** Largest configuration file. */
export const CONFIG_BYTES_MAX = 1_048_576;
