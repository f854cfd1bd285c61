// A batch as a Worker sees it, and the verdict that its calls add up to.
//
// The rules are the Workers runtime's, call by call; test/runtime has what the runtime itself answered.

import type { Body } from './body.js';
import { DELAY_SECONDS_MAX } from './limits.js';
import { toInt32 } from './number.js';
import type { QueueMetrics } from './queue.js';

/** The answer to the sidecar, in the shape in which the Workers runtime reports a batch. */
export interface Report {
  outcome: 'ok' | 'exception';
  ackAll: boolean;
  retryBatch: { retry: boolean; delaySeconds?: number };
  explicitAcks: string[];
  retryMessages: { msgId: string; delaySeconds?: number }[];
}

export interface RetryOptions {
  delaySeconds?: number;
}

/** What a message is made of. */
export interface Fields {
  id: string;
  timestampMs: number;
  attempts: number;
  body: Body;
  attributes: Record<string, string>;
}

/** Collects the calls of one batch. Calls that have no effect are passed to `warn`. */
export class Verdict {
  #ackAll = false;
  #retryAll: { delaySeconds?: number } | undefined;
  readonly #acks = new Set<string>();
  readonly #retries = new Map<string, number | undefined>();
  #answered = false;
  readonly #warn: (message: string) => void;

  constructor(warn: (message: string) => void) {
    this.#warn = warn;
  }

  ack(id: string): void {
    if (this.#late(`ack() on message ${id}`) || this.#ackAll) return;
    if (this.#retryAll) return this.#ignored(`ack() on message ${id}`, 'retryAll()');
    if (this.#retries.has(id)) return this.#ignored(`ack() on message ${id}`, 'retry()');
    this.#acks.add(id);
  }

  retry(id: string, delaySeconds: number | undefined): void {
    if (this.#late(`retry() on message ${id}`)) return;
    if (this.#ackAll) return this.#ignored(`retry() on message ${id}`, 'ackAll()');
    if (this.#acks.has(id)) return this.#ignored(`retry() on message ${id}`, 'ack()');
    // The last retry() of a message counts, with its delay or without one.
    this.#retries.set(id, this.#bounded(delaySeconds, `message ${id}`));
  }

  ackAll(): void {
    if (this.#late('ackAll()')) return;
    if (this.#retryAll) return this.#ignored('ackAll()', 'retryAll()');
    this.#ackAll = true;
  }

  retryAll(delaySeconds: number | undefined): void {
    if (this.#late('retryAll()')) return;
    if (this.#ackAll) return this.#ignored('retryAll()', 'ackAll()');
    this.#retryAll ??= {};
    // Unlike a message's, the batch's delay stays when a later call names none.
    const delay = this.#bounded(delaySeconds, 'the batch');
    if (delay !== undefined) this.#retryAll.delaySeconds = delay;
  }

  /** What the calls add up to. Later ones have no effect. */
  report(outcome: Report['outcome']): Report {
    this.#answered = true;
    const retries = [...this.#retries];
    return {
      outcome,
      ackAll: this.#ackAll,
      retryBatch: { retry: this.#retryAll !== undefined, ...this.#retryAll },
      explicitAcks: [...this.#acks],
      retryMessages: retries.map(([msgId, delaySeconds]) =>
        delaySeconds === undefined ? { msgId } : { msgId, delaySeconds },
      ),
    };
  }

  #late(call: string): boolean {
    if (this.#answered) this.#warn(`${call} came after the batch was answered: it has no effect`);
    return this.#answered;
  }

  #ignored(call: string, earlier: string): void {
    this.#warn(`${call} came after ${earlier}: it has no effect`);
  }

  /** A delay out of bounds would make the whole verdict malformed, and so take the other messages' verdicts with it. */
  #bounded(delaySeconds: number | undefined, of: string): number | undefined {
    if (delaySeconds === undefined) return undefined;
    const bounded = Math.min(Math.max(delaySeconds, 0), DELAY_SECONDS_MAX);
    if (bounded !== delaySeconds) {
      this.#warn(`delaySeconds ${delaySeconds} of ${of} is not 0 to ${DELAY_SECONDS_MAX}: it is retried after ${bounded} s`);
    }
    return bounded;
  }
}

/** Reads the options of retry() and retryAll() as the runtime does. */
function delayOf(options: RetryOptions | undefined | null, call: string): number | undefined {
  if (options === undefined || options === null) return undefined;
  if (typeof options !== 'object' && typeof options !== 'function') {
    throw new TypeError(`${call}: the options are no object, such as { delaySeconds: 30 }`);
  }
  return options.delaySeconds === undefined ? undefined : toInt32(options.delaySeconds);
}

export class QueueMessage {
  declare readonly attempts: number;
  declare readonly body: Body;
  declare readonly timestamp: Date;
  declare readonly id: string;
  /** What the producer sent along, strings by name (Capstan's extension). */
  declare readonly attributes: Readonly<Record<string, string>>;
  readonly #verdict: Verdict;

  constructor(fields: Fields, verdict: Verdict) {
    this.#verdict = verdict;
    const { id, timestampMs, attempts, body, attributes } = fields;
    readOnly(this, { attempts, body, timestamp: new Date(timestampMs), id, attributes });
  }

  /** Done with: it does not come again, even when the handler fails. */
  ack(): void {
    this.#verdict.ack(this.id);
  }

  /** It comes again, after `delaySeconds` or the Consumer's retry delay. */
  retry(options?: RetryOptions): void {
    this.#verdict.retry(this.id, delayOf(options, 'retry()'));
  }
}

export class MessageBatch {
  declare readonly metadata: { readonly metrics: QueueMetrics };
  declare readonly queue: string;
  declare readonly messages: readonly QueueMessage[];
  readonly #verdict: Verdict;

  constructor(queue: string, metrics: QueueMetrics, messages: Fields[], verdict: Verdict) {
    this.#verdict = verdict;
    readOnly(this, { metadata: { metrics }, queue, messages: messages.map((fields) => new QueueMessage(fields, verdict)) });
  }

  ackAll(): void {
    this.#verdict.ackAll();
  }

  retryAll(options?: RetryOptions): void {
    this.#verdict.retryAll(delayOf(options, 'retryAll()'));
  }
}

function readOnly(target: object, fields: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(fields)) Object.defineProperty(target, name, { value, enumerable: true });
}
