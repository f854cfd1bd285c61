// The port where a Worker's fetch() handler is served.

import http from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';

import { Background, Call } from './context.js';
import { FETCH_BYTES_MAX } from './limits.js';
import { listen } from './listen.js';
import { describe, log } from './log.js';
import type { Worker } from './worker.js';

/** Encodings that fetch() takes away from a body and leaves in the headers. */
const ENCODED = /^(gzip|deflate|br)$/i;

export class FetchServer {
  readonly #worker: Worker;
  readonly #background: Background;
  readonly #requests = new Background();
  readonly #server = http.createServer((request, response) => this.#requests.add(this.#serve(request, response)));

  constructor(worker: Worker, background: Background) {
    this.#worker = worker;
    this.#background = background;
  }

  listen(port: number, host: string | undefined): Promise<number> {
    return listen(this.#server, port, host);
  }

  get open(): number {
    return this.#requests.size;
  }

  /** Takes no more connections, and returns when the open requests are answered. */
  async end(): Promise<void> {
    this.#server.close();
    this.#server.closeIdleConnections();
    await this.#requests.idle();
    this.#server.closeAllConnections();
  }

  async #serve(incoming: http.IncomingMessage, outgoing: http.ServerResponse): Promise<void> {
    if (Number(incoming.headers['content-length'] ?? 0) > FETCH_BYTES_MAX) return plain(outgoing, 413, 'Content Too Large');
    const gone = new AbortController();
    outgoing.on('close', () => {
      if (!outgoing.writableFinished) gone.abort();
    });
    const request = requestOf(incoming, gone.signal);
    if (request === undefined) return plain(outgoing, 400, 'Bad Request');
    const call = new Call({ method: request.method, path: new URL(request.url).pathname });
    const response = await this.#worker.fetch(request, call);
    this.#background.add(call.settled());
    // A connection that is answered from now on must not wait for another request.
    if (!this.#server.listening) outgoing.setHeader('connection', 'close');
    if (response instanceof Response) return send(response, outgoing, call);
    if (!call.failed) call.fail('fetch() returned no Response', new TypeError(`it returned ${typeof response}`));
    return plain(outgoing, 500, 'Internal Server Error');
  }
}

/** The request as a handler gets it; undefined when it is none that can be put in that form. */
function requestOf(incoming: http.IncomingMessage, signal: AbortSignal): Request | undefined {
  const method = incoming.method ?? 'GET';
  const bodiless = method === 'GET' || method === 'HEAD';
  try {
    const target = incoming.url ?? '/';
    // A path may begin with two slashes: it is no host.
    const url = target.startsWith('/') ? `http://${incoming.headers.host ?? 'localhost'}${target}` : target;
    return new Request(url, {
      method,
      headers: headersOf(incoming),
      // A Worker passes a redirect on, unless it says otherwise.
      redirect: 'manual',
      signal,
      ...(bodiless ? {} : { body: Readable.toWeb(limited(incoming)) as never, duplex: 'half' }),
    });
  } catch {
    return undefined;
  }
}

/** The body, broken off where it becomes too large. */
function limited(incoming: http.IncomingMessage): Readable {
  async function* chunks(): AsyncGenerator<Buffer> {
    let bytes = 0;
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > FETCH_BYTES_MAX) throw new Error(`the request has more than ${FETCH_BYTES_MAX} bytes`);
      yield chunk;
    }
  }
  return Readable.from(chunks(), { objectMode: false });
}

function headersOf(incoming: http.IncomingMessage): Headers {
  const headers = new Headers();
  for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
    headers.append(incoming.rawHeaders[at] as string, incoming.rawHeaders[at + 1] as string);
  }
  return headers;
}

async function send(response: Response, outgoing: http.ServerResponse, call: Call): Promise<void> {
  try {
    const headers = new Map<string, string | string[]>(response.headers);
    // As for Workers, a body is plain whatever its encoding is called: fetch() has decoded it. It is sent as it is.
    if (ENCODED.test(response.headers.get('content-encoding') ?? '')) {
      headers.delete('content-encoding');
      headers.delete('content-length');
    }
    // Several cookies are several lines; every other header may be joined.
    const cookies = response.headers.getSetCookie();
    if (cookies.length > 0) headers.set('set-cookie', cookies);
    outgoing.writeHead(response.status, response.statusText || undefined, Object.fromEntries(headers));
    if (response.body === null || outgoing.req.method === 'HEAD') {
      await response.body?.cancel();
      outgoing.end();
      return;
    }
    await pipeline(Readable.fromWeb(response.body as ReadableStream), outgoing);
  } catch (thrown) {
    const clientLeft = (thrown as NodeJS.ErrnoException | null)?.code === 'ERR_STREAM_PREMATURE_CLOSE';
    if (clientLeft) log('debug', 'a client left before its response was whole', { error: describe(thrown) });
    else call.fail('the response could not be sent', thrown);
    // A half answer must not look like a whole one.
    outgoing.destroy();
  }
}

function plain(outgoing: http.ServerResponse, status: number, text: string): void {
  outgoing.writeHead(status, { 'content-type': 'text/plain', connection: 'close' }).end(`${text}\n`);
}
