// Requests to the sidecar's gateway, which passes them on to the broker.

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

/** The request was not taken: nothing of it was stored. */
class Refused {
  readonly error: QueueError;
  /** Milliseconds after which another try makes sense; never when absent. */
  readonly again: number | undefined;

  constructor(error: QueueError, again?: number) {
    this.error = error;
    this.again = again;
  }
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
   * POSTs a send. It is tried again only when it is certain that nothing was stored: no connection was made, or the
   * broker had no room for it.
   */
  async post(path: string, body: string): Promise<Result> {
    const bytes = Buffer.byteLength(body);
    if (this.#sending + bytes > SENDING_BYTES_MAX) {
      throw new QueueError(`sends of more than ${SENDING_BYTES_MAX} bytes are open: wait for some of them`, codes.overloaded);
    }
    this.#sending += bytes;
    try {
      return await this.#retried('POST', path, body);
    } finally {
      this.#sending -= bytes;
    }
  }

  async get(path: string): Promise<Result> {
    return this.#retried('GET', path, '');
  }

  close(): void {
    this.#agent.destroy();
  }

  async #retried(method: string, path: string, body: string): Promise<Result> {
    const deadline = performance.now() + SEND_RETRY_MS;
    for (let pause = SEND_PAUSE_MS; ; pause *= 2) {
      const outcome = await this.#once(method, path, body);
      if (!(outcome instanceof Refused)) return outcome;
      if (outcome.again === undefined) throw outcome.error;
      // Full jitter on top of what was asked for, so that many senders do not come back at once.
      const wait = outcome.again + Math.random() * pause;
      if (performance.now() + wait > deadline) throw outcome.error;
      log('debug', 'a send is tried again', { path, after: wait, error: outcome.error.message });
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async #once(method: string, path: string, body: string): Promise<Result | Refused> {
    let answer: Answer;
    try {
      answer = await this.#request(method, path, body);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const where = `the gateway at ${this.#base.origin}`;
      // Without a connection nothing was sent.
      if (isUnconnected(error)) {
        return new Refused(new QueueError(`no connection to ${where}: ${code}`, codes.unknown), 0);
      }
      throw new QueueError(`no answer of ${where}, so it is not known whether it was stored: ${message}`, codes.unknown);
    }
    return read(answer);
  }

  #request(method: string, path: string, body: string): Promise<Answer> {
    const base = this.#base;
    const url = new URL(base.pathname.replace(/\/$/, '') + path, base);
    const headers = body === '' ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
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
function read(answer: Answer): Result | Refused {
  const envelope = parse(answer.body);
  if (answer.status === 200 && envelope?.success === true) return object(envelope.result) ?? {};
  const first = Array.isArray(envelope?.errors) ? object(envelope.errors[0]) : undefined;
  const message = typeof first?.message === 'string' ? first.message : `the gateway answered ${answer.status}`;
  const code = typeof first?.code === 'number' ? first.code : codes.unknown;
  const error = new QueueError(message, code);
  // 429 says that nothing was stored, and so does a gateway that has no room. Of any other 500 or 503 nobody knows, so a
  // second try could store it twice.
  const nothing = answer.status === 429 || (answer.status === 503 && code === codes.overloaded);
  return nothing ? new Refused(error, seconds(answer.retryAfter) * 1000) : new Refused(error);
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
