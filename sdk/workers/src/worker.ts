// Loads the Worker and its other bindings, and calls its handlers.

import { register } from 'node:module';
import { pathToFileURL } from 'node:url';

import type { MessageBatch } from './batch.js';
import { env } from './cloudflare.js';
import type { Config } from './config.js';
import type { Call, ExecutionContext } from './context.js';
import { ConfigError } from './errors.js';
import type { Gateway } from './gateway.js';
import { describe, log } from './log.js';
import { Queue } from './queue.js';

export type Bindings = Record<string, unknown>;

/** Handlers for events that Capstan does not have. */
const OTHER_HANDLERS = ['scheduled', 'email', 'tail', 'tailStream', 'connect'];

/** The default export of a Worker; each handler may be absent. */
export interface WorkerModule {
  fetch?(request: Request, env: Bindings, ctx: ExecutionContext): unknown;
  queue?(batch: MessageBatch, env: Bindings, ctx: ExecutionContext): unknown;
}

/** A Worker that is a class: an object of it is made for each call. */
type WorkerClass = new (ctx: ExecutionContext, env: Bindings) => {
  fetch?(request: Request): unknown;
  queue?(batch: MessageBatch): unknown;
};

/** A module of other bindings: an object, or a function that is called once with the bindings so far. */
export interface BindingsModule {
  default: Bindings | ((env: Bindings) => Bindings | Promise<Bindings>);
  /** Called at the end, after the last call. */
  close?(): void | Promise<void>;
}

export interface Worker {
  readonly handlesFetch: boolean;
  readonly handlesQueue: boolean;
  fetch(request: Request, call: Call): Promise<unknown>;
  queue(batch: MessageBatch, call: Call): Promise<unknown>;
  /** Ends what the module of bindings began. */
  close(): Promise<void>;
}

/**
 * Loads everything that `config` names.
 *
 * @throws ConfigError when a module cannot be loaded, or a binding is missing or there twice
 */
export async function loadWorker(config: Config, gateway: Gateway): Promise<Worker> {
  const files = [config.module, config.bindings].filter((file) => file !== undefined);
  register('./hooks.js', import.meta.url, { data: { modules: files.map((file) => pathToFileURL(file).href) } });
  const vars = Object.entries(config.vars);
  const queues = [...config.producers].map(([name, producer]) => [name, new Queue(gateway, producer)] as const);
  bind(vars, '"vars" or --var');
  bind(queues, '"queues.producers" or --queue');
  const close = await bindOthers(config);
  const missing = [...config.required].filter(([name]) => !Object.hasOwn(env, name));
  if (missing.length > 0) {
    const names = missing.map(([name, section]) => `${name} (${section})`).join(', ');
    throw new ConfigError(`the configuration names bindings that nothing supplies: ${names}; name a module that does with --bindings`);
  }
  const { default: worker } = await load(config.module);
  const handlers = typeof worker === 'function' ? worker.prototype : worker;
  const has = (name: 'fetch' | 'queue') => typeof handlers?.[name] === 'function';
  if (!has('fetch') && !has('queue')) {
    throw new ConfigError(`${config.module} exports no handler: export default { async queue(batch, env, ctx) { … } }`);
  }
  const idle = OTHER_HANDLERS.filter((name) => typeof handlers[name] === 'function');
  if (idle.length > 0) log('warn', 'the Worker has handlers that nothing calls here', { handlers: idle });
  return {
    handlesFetch: has('fetch'),
    handlesQueue: has('queue'),
    fetch: (request, call) => call.run(() => handle(worker, 'fetch', request, call.ctx)),
    queue: (batch, call) => call.run(() => handle(worker, 'queue', batch, call.ctx)),
    close,
  };
}

function handle(worker: WorkerModule | WorkerClass, name: 'fetch' | 'queue', event: Request | MessageBatch, ctx: ExecutionContext): unknown {
  // A class gets bindings and context when its object is made, an object of handlers with each call.
  if (typeof worker === 'function') return call(new worker(ctx, env), name, [event]);
  return call(worker, name, [event, env, ctx]);
}

function call(target: object, name: string, args: unknown[]): unknown {
  return (target as Record<string, (...args: unknown[]) => unknown>)[name]?.(...args);
}

function bind(bindings: Iterable<readonly [string, unknown]>, from: string): void {
  for (const [name, value] of bindings) {
    if (Object.hasOwn(env, name)) throw new ConfigError(`the binding ${name} of ${from} is there already: rename one`);
    Object.defineProperty(env, name, { value, enumerable: true, configurable: true, writable: true });
  }
}

async function bindOthers(config: Config): Promise<() => Promise<void>> {
  if (config.bindings === undefined) return async () => {};
  const module = await load(config.bindings);
  let others: unknown = module.default;
  try {
    if (typeof others === 'function') others = await others({ ...env });
  } catch (thrown) {
    throw new ConfigError(`${config.bindings} failed: ${describe(thrown)}`);
  }
  if (typeof others !== 'object' || others === null) {
    throw new ConfigError(`${config.bindings} supplies no bindings: export default an object of them, or a function that returns one`);
  }
  bind(Object.entries(others), config.bindings);
  return async () => void (await module.close?.());
}

// What a user's module exports is known only when it is there.
async function load(file: string): Promise<any> {
  if (/\.[cm]?ts$/.test(file) && !(process.features as { typescript?: unknown }).typescript) {
    throw new ConfigError(`${file} is TypeScript, which Node ${process.versions.node} does not run: name what your bundler makes of it`);
  }
  try {
    return await import(pathToFileURL(file).href);
  } catch (thrown) {
    throw new ConfigError(`${file} cannot be loaded: ${describe(thrown)}`);
  }
}
