// What both ports share: listening, and reading a body up to a limit.

import { once } from 'node:events';
import type http from 'node:http';
import type { AddressInfo } from 'node:net';

import { ConfigError } from './errors.js';
import { CONNECTIONS_MAX } from './limits.js';

/**
 * Lets `server` listen, and returns the port. Without `host` it listens on all addresses, of both kinds where there are.
 *
 * @throws ConfigError when it cannot
 */
export async function listen(server: http.Server, port: number, host: string | undefined): Promise<number> {
  server.maxConnections = CONNECTIONS_MAX;
  try {
    server.listen({ port, ...(host === undefined ? {} : { host }) });
    await once(server, 'listening');
  } catch (error) {
    throw new ConfigError(`port ${port} cannot be listened on: ${(error as Error).message}`);
  }
  return (server.address() as AddressInfo).port;
}

/** The client went away before its request was whole. */
export class Gone extends Error {}

/**
 * Reads a body of at most `max` bytes; undefined when it is larger, and nothing more of it is read then.
 *
 * @throws Gone
 */
export async function readBody(request: http.IncomingMessage, max: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > max) return undefined;
      chunks.push(chunk);
    }
  } catch (error) {
    throw new Gone((error as Error).message);
  }
  return Buffer.concat(chunks, bytes);
}

/**
 * Reads the rest of a body and throws it away, so that a client that still writes gets its answer, and no connection that
 * breaks. Whether it ended within `max` bytes.
 *
 * @throws Gone
 */
export async function drain(request: http.IncomingMessage, max: number): Promise<boolean> {
  let bytes = 0;
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > max) return false;
    }
  } catch (error) {
    throw new Gone((error as Error).message);
  }
  return true;
}

/** Whether a request came from this machine, or pod: there the sidecar is. */
export function isLocal(address: string | undefined): boolean {
  const plain = (address ?? '').replace(/^::ffff:/, '');
  return plain === '::1' || plain.startsWith('127.');
}
