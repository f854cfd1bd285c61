// What a Worker can import from `cloudflare:workers`.

import { calls, type ExecutionContext } from './context.js';

/** The bindings; the same object that handlers get. */
export const env: Record<string, unknown> = {};

/** Keeps the call that runs now open until `promise` is settled. */
export function waitUntil(promise: Promise<unknown>): void {
  const call = calls.getStore();
  if (call === undefined) throw new Error('waitUntil() was called outside a handler: there is no call that could wait');
  call.waitUntil(promise);
}

class Entrypoint {
  readonly ctx: ExecutionContext;
  readonly env: Record<string, unknown>;

  constructor(ctx: ExecutionContext, bindings: Record<string, unknown>) {
    this.ctx = ctx;
    this.env = bindings;
  }
}

/** The base of a Worker that is a class: its methods fetch() and queue() are the handlers. */
export class WorkerEntrypoint extends Entrypoint {}

// A module that has such classes beside its handlers loads. There is nothing here that would run them.
export class DurableObject extends Entrypoint {}
export class WorkflowEntrypoint extends Entrypoint {}
export class RpcTarget {}
