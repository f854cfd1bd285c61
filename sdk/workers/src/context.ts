// The `ctx` of a handler, and what it was told to wait for.

import { AsyncLocalStorage } from 'node:async_hooks';

import { describe, log } from './log.js';

/** What a handler gets as its third argument. */
export interface ExecutionContext {
  /** Keeps the call open, or after a response the process, until `promise` is settled. */
  waitUntil(promise: Promise<unknown>): void;
  /** There is no origin to pass to: a `fetch` handler that throws is answered 500 all the same. */
  passThroughOnException(): void;
  readonly props: Record<string, unknown>;
}

/** One call of a handler: its promises, and whether one of them failed. */
export class Call {
  readonly ctx: ExecutionContext;
  readonly #what: Record<string, unknown>;
  #open = 0;
  #idle: (() => void)[] = [];
  #failed = false;

  /** `what` names the call in the log. */
  constructor(what: Record<string, unknown>) {
    this.#what = what;
    this.ctx = new Context(this);
  }

  /** Whether the handler, a promise that it waits for, or a callback of it failed. */
  get failed(): boolean {
    return this.#failed;
  }

  /** Runs a handler in this call, and waits for it alone. It never throws: what was thrown is `failed`. */
  async run<T>(handler: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await calls.run(this, handler);
    } catch (thrown) {
      this.fail('the handler failed', thrown);
      return undefined;
    }
  }

  fail(message: string, thrown: unknown): void {
    this.#failed = true;
    log('error', message, { ...this.#what, error: describe(thrown) });
  }

  waitUntil(promise: unknown): void {
    this.#open += 1;
    Promise.resolve(promise)
      .catch((thrown: unknown) => this.fail('a promise given to waitUntil() was rejected', thrown))
      .finally(() => {
        this.#open -= 1;
        if (this.#open === 0) for (const idle of this.#idle.splice(0)) idle();
      });
  }

  /** Resolves when all promises are settled, those too that are given meanwhile. */
  async settled(): Promise<void> {
    while (this.#open > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

/** The call in which code runs, also in its timers and callbacks. */
export const calls = new AsyncLocalStorage<Call>();

class Context implements ExecutionContext {
  declare readonly props: Record<string, unknown>;
  readonly #call: Call;

  constructor(call: Call) {
    this.#call = call;
    Object.defineProperty(this, 'props', { value: {}, enumerable: true });
  }

  waitUntil(...promises: unknown[]): void {
    if (promises.length === 0) throw new TypeError('waitUntil() takes a promise');
    this.#call.waitUntil(promises[0]);
  }

  passThroughOnException(): void {
    // Nothing to pass to.
  }
}

/** Work that ending waits for: calls, answers, and promises that outlive them. */
export class Background {
  readonly #open = new Set<Promise<void>>();

  get size(): number {
    return this.#open.size;
  }

  add(promise: Promise<void>): void {
    const logged = promise.catch((thrown: unknown) => log('error', 'something failed inside the runner', { error: describe(thrown) }));
    const tracked = logged.finally(() => this.#open.delete(tracked));
    this.#open.add(tracked);
  }

  /** Resolves when nothing is open any more. */
  async idle(): Promise<void> {
    while (this.#open.size > 0) await Promise.all(this.#open);
  }
}
