// The port where the sidecar's batches arrive: each is handed to queue(), and the answer is the verdict.

import http from 'node:http';
import { finished } from 'node:stream/promises';

import { MessageBatch, Verdict } from './batch.js';
import { Background, Call } from './context.js';
import { BATCH_BYTES_MAX, CALLS_BYTES_MAX, CALLS_MAX, LINGER_MS } from './limits.js';
import { drain, Gone, isLocal, listen, readBody } from './listen.js';
import { describe, log } from './log.js';
import { type Batch, readBatch, RequestError } from './request.js';
import type { Worker } from './worker.js';

export interface ConsumerOptions {
  port: number;
  host: string | undefined;
  /** The path of the Consumer's endpoint. */
  path: string;
  /** Whether an answer waits for the promises given to waitUntil(), and fails with them. */
  waitForWaitUntil: boolean;
}

/** An answer that is no verdict: most say that the call never began, which costs no message an attempt. */
class Refusal extends Error {
  readonly status: number;
  readonly headers: http.OutgoingHttpHeaders;

  constructor(status: number, message: string, headers: http.OutgoingHttpHeaders = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

export class Consumer {
  readonly #worker: Worker;
  readonly #options: ConsumerOptions;
  readonly #calls = new Background();
  readonly #serving = new Background();
  readonly #server = http.createServer((request, response) => this.#serving.add(this.#serve(request, response)));
  readonly #background: Background;
  #bytes = 0;
  #ending = false;
  #answeredAt = Number.NEGATIVE_INFINITY;

  constructor(worker: Worker, background: Background, options: ConsumerOptions) {
    this.#worker = worker;
    this.#background = background;
    this.#options = options;
  }

  listen(): Promise<number> {
    return listen(this.#server, this.#options.port, this.#options.host);
  }

  get open(): number {
    return this.#calls.size;
  }

  /**
   * Finishes the open calls and takes no more. It goes on answering, so that the sidecar gives back what it still
   * hands over, instead of meeting a connection that breaks.
   */
  async end(): Promise<void> {
    this.#ending = true;
    await this.#calls.idle();
    const linger = this.#answeredAt + LINGER_MS - performance.now();
    if (linger > 0) await new Promise((resolve) => setTimeout(resolve, linger));
    await this.#serving.idle();
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    response.on('finish', () => {
      this.#answeredAt = performance.now();
    });
    if (this.#ending) response.setHeader('connection', 'close');
    const [pathname = ''] = (request.url ?? '').split('?');
    if (pathname === '/healthz' && (request.method === 'GET' || request.method === 'HEAD')) {
      return answer(response, this.#ending ? 503 : 200, 'text/plain', this.#ending ? 'ending\n' : 'ok\n');
    }
    try {
      this.#check(request, pathname);
      await this.#read(request, response);
    } catch (error) {
      await refuse(request, response, error);
    }
  }

  #check(request: http.IncomingMessage, pathname: string): void {
    if (pathname !== this.#options.path) throw new Refusal(404, `batches are taken at ${this.#options.path}`);
    if (request.method !== 'POST') throw new Refusal(405, 'batches are taken by POST', { allow: 'POST' });
    if (!isLocal(request.socket.remoteAddress)) throw new Refusal(403, 'batches are taken from the pod itself alone');
    if (!this.#worker.handlesQueue) throw new Refusal(501, 'the Worker exports no queue() handler');
    if (this.#ending) throw new Refusal(503, 'the Worker is ending', { 'retry-after': '1' });
    const announced = Number(request.headers['content-length'] ?? 0);
    if (announced > BATCH_BYTES_MAX) throw tooLarge();
    if (this.#calls.size >= CALLS_MAX || this.#bytes + announced > CALLS_BYTES_MAX) {
      throw new Refusal(503, 'too many batches are open', { 'retry-after': '1' });
    }
  }

  async #read(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    // A batch of unknown length counts as the largest one.
    const bytes = Number(request.headers['content-length'] ?? BATCH_BYTES_MAX);
    this.#bytes += bytes;
    const done = this.#handle(request, response).finally(() => {
      this.#bytes -= bytes;
    });
    this.#calls.add(done.catch(() => {}));
    await done;
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const body = await readBody(request, BATCH_BYTES_MAX);
    if (body === undefined) throw tooLarge();
    const batch = readBatch(body);
    const ids = batch.messages.map((message) => message.id);
    const what = { queue: batch.queue, messages: ids };
    response.on('close', () => {
      if (!response.writableFinished) log('warn', 'the sidecar cut the call: the endpoint\'s timeout is over, or it ended', what);
    });
    const verdict = new Verdict((message) => log('warn', message, { queue: batch.queue }));
    const failed = batch.messages.length > 0 && (await this.#call(batch, verdict, new Call(what)));
    const report = verdict.report(failed ? 'exception' : 'ok');
    if (this.#ending) response.setHeader('connection', 'close');
    for (const { id, why } of batch.unreadable) {
      log('error', 'a body cannot be read: the message is retried', { queue: batch.queue, messages: [id], error: why });
      report.retryMessages.push({ msgId: id });
    }
    await answer(response, failed ? 500 : 200, 'application/json', JSON.stringify(report));
  }

  /** Calls the handler, and returns whether the call failed. */
  async #call(batch: Batch, verdict: Verdict, call: Call): Promise<boolean> {
    await this.#worker.queue(new MessageBatch(batch.queue, batch.metrics, batch.messages, verdict), call);
    if (this.#options.waitForWaitUntil) await call.settled();
    else this.#background.add(call.settled());
    return call.failed;
  }
}

function tooLarge(): Refusal {
  return new Refusal(413, `a batch of more than ${BATCH_BYTES_MAX} bytes is not read: lower the Consumer's maxBatchBytes`);
}

/** Answers with an error. A sidecar that still writes would take a broken connection for a failed call: it is heard out. */
async function refuse(request: http.IncomingMessage, response: http.ServerResponse, error: unknown): Promise<void> {
  const whole = !(error instanceof Gone) && (await drain(request, BATCH_BYTES_MAX * 2).catch(() => false));
  // Whoever went away, or writes without end, gets no answer.
  if (!whole) return void response.destroy();
  const known = error instanceof RequestError ? new Refusal(400, error.message) : error;
  if (!(known instanceof Refusal)) {
    log('error', 'a call failed inside the runner', { error: describe(error) });
    return answer(response, 500, 'text/plain', 'the runner failed\n');
  }
  log('warn', 'a call was refused', { status: known.status, reason: known.message });
  return answer(response, known.status, 'text/plain', `${known.message}\n`, known.headers);
}

/** Answers, and returns when the system has the answer: a process that ends before would take it along. */
async function answer(
  response: http.ServerResponse,
  status: number,
  type: string,
  body: string,
  headers: http.OutgoingHttpHeaders = {},
): Promise<void> {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), ...headers }).end(body);
  // A client that went away has no use for it.
  await finished(response).catch(() => {});
}
