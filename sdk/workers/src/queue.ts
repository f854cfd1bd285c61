// `env.QUEUE`: sends to a queue through the gateway.

import { type Body, type ContentType, contentTypeOf, encode } from './body.js';
import { codes, QueueError } from './errors.js';
import type { Gateway, Result } from './gateway.js';
import { BODY_BYTES_MAX, DELAY_SECONDS_MAX, SEND_BATCH_MAX } from './limits.js';
import { toInt32 } from './number.js';

export interface SendOptions {
  contentType?: ContentType;
  /** 0 to 86,400; 0 also where the queue delays by default. */
  delaySeconds?: number;
}

export interface SendBatchOptions {
  /** For messages that name none. */
  delaySeconds?: number;
}

export interface SendRequest extends SendOptions {
  body: Body;
}

export interface QueueMetrics {
  backlogCount: number;
  backlogBytes: number;
  oldestMessageTimestamp?: Date;
}

export interface SendResponse {
  metadata: { metrics: QueueMetrics };
}

/** How a binding sends. */
export interface Producer {
  queue: string;
  /** The binding's delay for sends that name none. */
  delaySeconds?: number;
  /** What a body without `contentType` is sent as. */
  contentType: ContentType;
}

/** One producer binding. */
export class Queue {
  readonly #gateway: Gateway;
  readonly #producer: Producer;

  constructor(gateway: Gateway, producer: Producer) {
    this.#gateway = gateway;
    this.#producer = producer;
  }

  async send(body: Body, options?: SendOptions): Promise<SendResponse> {
    const message = this.#message({ body, ...optionsOf(options) }, this.#producer.delaySeconds);
    return sent(await this.#gateway.post(this.#path('messages'), message));
  }

  async sendBatch(requests: Iterable<SendRequest>, options?: SendBatchOptions): Promise<SendResponse> {
    const delay = delayOf(optionsOf(options).delaySeconds, codes.batchDelay) ?? this.#producer.delaySeconds;
    const messages: string[] = [];
    for (const request of iterable(requests)) {
      if (messages.length === SEND_BATCH_MAX) {
        throw new QueueError(`messages: a batch holds 1 to ${SEND_BATCH_MAX} messages, this one has more`, codes.batchCount);
      }
      if (typeof request !== 'object' || request === null) {
        throw new TypeError(`sendBatch() takes objects with a body; message ${messages.length} is none`);
      }
      messages.push(this.#message(request, undefined));
    }
    if (messages.length === 0) throw new TypeError('sendBatch() requires at least one message');
    const ofBatch = delay === undefined ? '' : `,"delay_seconds":${delay}`;
    return sent(await this.#gateway.post(this.#path('messages/batch'), `{"messages":[${messages.join(',')}]${ofBatch}}`));
  }

  /** What waits in the queue, where the gateway tells. */
  async metrics(): Promise<QueueMetrics> {
    return metricsOf(await this.#gateway.get(this.#path('metrics')));
  }

  #path(rest: string): string {
    return `/queues/${encodeURIComponent(this.#producer.queue)}/${rest}`;
  }

  #message(request: SendRequest, delayDefault: number | undefined): string {
    const named = request.contentType;
    const type = named === undefined ? this.#producer.contentType : contentTypeOf(named);
    const { json, bytes } = encode(request.body, type);
    if (bytes > BODY_BYTES_MAX) {
      throw new QueueError(`body: message length of ${bytes} bytes exceeds limit of ${BODY_BYTES_MAX}`, codes.messageSize);
    }
    const delay = delayOf(request.delaySeconds, codes.messageMetadata) ?? delayDefault;
    return `{"body":${json},"content_type":"${type}"${delay === undefined ? '' : `,"delay_seconds":${delay}`}}`;
  }
}

function optionsOf<T extends object>(options: T | undefined | null): Partial<T> {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object') throw new TypeError('the options of a send are no object, such as { delaySeconds: 30 }');
  return options;
}

function delayOf(value: number | undefined, code: number): number | undefined {
  if (value === undefined) return undefined;
  const delay = toInt32(value);
  if (delay < 0 || delay > DELAY_SECONDS_MAX) {
    throw new QueueError(`delaySeconds: ${delay} is not 0 to ${DELAY_SECONDS_MAX}`, code);
  }
  return delay;
}

function iterable(requests: unknown): Iterable<SendRequest> {
  const there = typeof requests === 'object' && requests !== null && Symbol.iterator in requests;
  if (!there) throw new TypeError('sendBatch() takes an array, or another iterable object, of messages');
  return requests as Iterable<SendRequest>;
}

function sent(result: Result): SendResponse {
  const metadata = result.metadata as { metrics?: Result } | undefined;
  return { metadata: { metrics: metricsOf(metadata?.metrics ?? {}) } };
}

function metricsOf(result: Result): QueueMetrics {
  const { backlog_count: count, backlog_bytes: bytes, oldest_message_timestamp_ms: oldest } = result;
  const metrics: QueueMetrics = { backlogCount: Number(count ?? 0), backlogBytes: Number(bytes ?? 0) };
  // Zero says that nothing waits.
  if (typeof oldest === 'number' && oldest > 0) metrics.oldestMessageTimestamp = new Date(oldest);
  return metrics;
}
