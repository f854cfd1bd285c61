// Requests to the sidecar's gateway, which passes them on to the broker.

import { randomUUID } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';

import { codes, QueueError } from './errors.js';
import {
  GATEWAY_ANSWER_BYTES_MAX,
  GATEWAY_ANSWER_MS,
  GATEWAY_IDLE_MS,
  GATEWAY_SOCKETS_MAX,
  SEND_PAUSE_MS,
  SEND_RETRY_MS,
  SENDING_BYTES_MAX,
} from './limits.js';
import { log } from './log.js';

interface Answer {
  status: number;
  retryAfter: string | undefined;
  body: string;
}

/** The field `result` of an answer. */
export type Result = Record<string, unknown>;

/** A try that came to nothing. */
interface Failure {
  error: QueueError;
  /** Milliseconds after which another try makes sense; never when absent. */
  again?: number;
  /** The request may have been stored all the same: another try is harmless only with the key of this one. */
  mayBeStored: boolean;
}

/** What another try sends again. */
interface Outgoing {
  method: string;
  path: string;
  body: string;
  /** The send's idempotency key: tries that have the same are stored once. */
  key?: string;
}

export class Gateway {
  readonly #base: URL;
  readonly #agent: http.Agent;
  #sending = 0;

  /** `base` is what `/queues/NAME/messages` is appended to. */
  constructor(base: URL) {
    this.#base = base;
    const options = { keepAlive: true, maxSockets: GATEWAY_SOCKETS_MAX, timeout: GATEWAY_IDLE_MS };
    this.#agent = base.protocol === 'https:' ? new https.Agent(options) : new http.Agent(options);
  }

  /**
   * POSTs a send, which is stored once: all of its tries have the same key. It is tried again when no connection was made
   * or one broke, when there was no room, or when the broker is away.
   */
  async post(path: string, body: string): Promise<Result> {
    const bytes = Buffer.byteLength(body);
    if (this.#sending + bytes > SENDING_BYTES_MAX) {
      throw new QueueError(`sends of more than ${SENDING_BYTES_MAX} bytes are open: wait for some of them`, codes.overloaded);
    }
    this.#sending += bytes;
    try {
      return await this.#retried({ method: 'POST', path, body, key: randomUUID() });
    } finally {
      this.#sending -= bytes;
    }
  }

  async get(path: string): Promise<Result> {
    return this.#retried({ method: 'GET', path, body: '' });
  }

  close(): void {
    this.#agent.destroy();
  }

  async #retried(outgoing: Outgoing): Promise<Result> {
    const deadline = performance.now() + SEND_RETRY_MS;
    const { path } = outgoing;
    let mayBeStored = false;
    for (let pause = SEND_PAUSE_MS; ; pause *= 2) {
      const outcome = await this.#once(outgoing);
      if ('result' in outcome) return outcome.result;
      mayBeStored ||= outcome.mayBeStored;
      // Better a send that is not tried again than none.
      if (!mayBeStored && outgoing.key !== undefined && outcome.error.code === codes.keysFull) {
        delete outgoing.key;
        continue;
      }
      if (outcome.again === undefined || (mayBeStored && outgoing.key === undefined)) throw outcome.error;
      // Full jitter on top of what was asked for, so that many senders do not come back at once.
      const wait = outcome.again + Math.random() * pause;
      if (performance.now() + wait > deadline) throw outcome.error;
      log('debug', 'a send is tried again', { path, after: wait, error: outcome.error.message });
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async #once(outgoing: Outgoing): Promise<{ result: Result } | Failure> {
    let answer: Answer;
    try {
      answer = await this.#request(outgoing);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const where = `the gateway at ${this.#base.origin}`;
      // Without a connection nothing was sent.
      if (isUnconnected(error)) {
        return { error: new QueueError(`no connection to ${where}: ${code}`, codes.unknown), again: 0, mayBeStored: false };
      }
      const unknown = new QueueError(`no answer of ${where}, so it is not known whether it was stored: ${message}`, codes.unknown);
      return { error: unknown, ...(BROKEN.has(code) ? { again: 0 } : {}), mayBeStored: true };
    }
    return read(answer);
  }

  #request({ method, path, body, key }: Outgoing): Promise<Answer> {
    const base = this.#base;
    const url = new URL(base.pathname.replace(/\/$/, '') + path, base);
    const content = body === '' ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const headers = key === undefined ? content : { ...content, 'idempotency-key': `"${key}"` };
    const client = url.protocol === 'https:' ? https : http;
    return new Promise((resolve, reject) => {
      const request = client.request(url, { method, headers, agent: this.#agent }, (response) => {
        readAnswer(response).then(resolve, reject);
      });
      const late = () => request.destroy(new Error(`no answer within ${GATEWAY_ANSWER_MS / 1000} s`));
      const timer = setTimeout(late, GATEWAY_ANSWER_MS);
      request.on('close', () => clearTimeout(timer));
      request.on('error', reject);
      request.end(body);
    });
  }
}

/** What the system says of a connection that broke; Node says ECONNRESET of a half answer, too. */
const BROKEN: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT']);

/** Whether an error says that no connection came about; a name with several addresses has one error for each. */
function isUnconnected(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.every(isUnconnected);
  const { syscall } = error as NodeJS.ErrnoException;
  return syscall === 'connect' || syscall === 'getaddrinfo';
}

async function readAnswer(response: http.IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > GATEWAY_ANSWER_BYTES_MAX) throw new Error(`its answer is longer than ${GATEWAY_ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks).toString('utf8');
  return { status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'], body };
}

/** Reads the envelope that the broker puts around every answer. */
function read(answer: Answer): { result: Result } | Failure {
  const envelope = parse(answer.body);
  if (answer.status === 200 && envelope?.success === true) return { result: object(envelope.result) ?? {} };
  const first = Array.isArray(envelope?.errors) ? object(envelope.errors[0]) : undefined;
  const message = typeof first?.message === 'string' ? first.message : `the gateway answered ${answer.status}`;
  const code = typeof first?.code === 'number' ? first.code : codes.unknown;
  const error = new QueueError(message, code);
  // 429 says that nothing was stored, and so does a gateway that has no room. Of any other 5xx nobody knows.
  const nothing = answer.status < 500 || (answer.status === 503 && code === codes.overloaded);
  const later = answer.status === 429 || answer.status === 503;
  return { error, ...(later ? { again: seconds(answer.retryAfter) * 1000 } : {}), mayBeStored: !nothing };
}

function seconds(retryAfter: string | undefined): number {
  return retryAfter !== undefined && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : 0;
}

function parse(text: string): Result | undefined {
  try {
    return object(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function object(value: unknown): Result | undefined {
  return typeof value === 'object' && value !== null ? (value as Result) : undefined;
}
