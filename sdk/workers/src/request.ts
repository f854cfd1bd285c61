// Reads the sidecar's request: a batch of messages as JSON.

import { CONTENT_TYPES, type ContentType, decode } from './body.js';
import type { Fields } from './batch.js';
import { describe } from './log.js';
import type { QueueMetrics } from './queue.js';

/** A batch as it arrived; a message whose body cannot be read is set apart. */
export interface Batch {
  queue: string;
  metrics: QueueMetrics;
  messages: Fields[];
  unreadable: { id: string; why: string }[];
}

/** The request is none of the sidecar's; the message names the field. */
export class RequestError extends Error {}

/** @throws RequestError */
export function readBatch(body: Buffer): Batch {
  let request: unknown;
  try {
    request = JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new RequestError(`the body is no JSON: ${(error as Error).message}`);
  }
  const { queue, metadata, messages } = object(request, 'the body');
  const batch: Batch = { queue: field(queue, 'string', 'queue'), metrics: readMetrics(metadata), messages: [], unreadable: [] };
  if (!Array.isArray(messages) || messages.length === 0) throw new RequestError('messages is no list with a message');
  messages.forEach((message, index) => readMessage(batch, object(message, `messages[${index}]`), `messages[${index}]`));
  return batch;
}

/** What an older sidecar does not say is zero, as in the runtime when nobody told it. */
function readMetrics(metadata: unknown): QueueMetrics {
  const told = object(object(metadata ?? {}, 'metadata').metrics ?? {}, 'metadata.metrics');
  const number = (name: string) => field(told[name] ?? 0, 'number', `metadata.metrics.${name}`);
  const metrics: QueueMetrics = { backlogCount: number('backlogCount'), backlogBytes: number('backlogBytes') };
  const oldest = number('oldestMessageTimestampMs');
  if (oldest > 0) metrics.oldestMessageTimestamp = new Date(oldest);
  return metrics;
}

function readMessage(batch: Batch, message: Record<string, unknown>, at: string): void {
  const id = field(message.id, 'string', `${at}.id`);
  const timestampMs = field(message.timestampMs, 'number', `${at}.timestampMs`);
  const attempts = field(message.attempts, 'number', `${at}.attempts`);
  const attributes = object(message.attributes ?? {}, `${at}.attributes`) as Record<string, string>;
  if (!('body' in message)) throw new RequestError(`${at}.body is missing`);
  const type = CONTENT_TYPES.find((known) => known === message.contentType);
  try {
    const body = decode(message.body, type ?? unknown(message.contentType));
    batch.messages.push({ id, timestampMs, attempts, body, attributes });
  } catch (thrown) {
    // Its stack says nothing more to a reader.
    const [why = ''] = describe(thrown).split('\n');
    batch.unreadable.push({ id, why });
  }
}

function unknown(contentType: unknown): ContentType {
  throw new Error(`the content type ${JSON.stringify(contentType)} is not known`);
}

function object(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new RequestError(`${name} is no object`);
}

function field(value: unknown, type: 'string', name: string): string;
function field(value: unknown, type: 'number', name: string): number;
function field(value: unknown, type: string, name: string): unknown {
  if (typeof value !== type) throw new RequestError(`${name} is no ${type}`);
  return value;
}
