// Compiled, never run: Workers typed with @cloudflare/workers-types fit this package's types, and its objects fit theirs.

import type * as cf from '@cloudflare/workers-types';

import type { Bindings, BindingsModule, ExecutionContext, Message, MessageBatch, Queue, WorkerModule } from '../src/index.js';

interface Order {
  item: string;
}

interface Env {
  ORDERS: cf.Queue<Order>;
  COLOUR: string;
}

// A Worker as its author types it.
const worker = {
  async fetch(request, env, ctx) {
    await env.ORDERS.send({ item: new URL(request.url).pathname }, { contentType: 'json', delaySeconds: 5 });
    ctx.waitUntil(env.ORDERS.sendBatch([{ body: { item: 'lamp' }, contentType: 'json', delaySeconds: 1 }], { delaySeconds: 2 }));
    ctx.passThroughOnException();
    return new Response('sent') as unknown as cf.Response;
  },
  async queue(batch, env, ctx) {
    for (const message of batch.messages) {
      if (message.body.item === env.COLOUR) message.ack();
      else message.retry({ delaySeconds: message.attempts * 10 });
    }
    if (batch.metadata.metrics.backlogCount > 0) batch.retryAll({ delaySeconds: 1 });
    batch.ackAll();
    ctx.waitUntil(Promise.resolve(batch.queue));
  },
} satisfies cf.ExportedHandler<Env, Order>;

/** True when every A is a B. */
type Fits<A, B> = A extends B ? true : false;
const yes = <T extends true>(): T => true as T;

// What the runner hands over is what the author's types promise: the batch and its messages whole …
yes<Fits<MessageBatch, cf.MessageBatch>>();
yes<Fits<Message, cf.Message>>();
// … what a binding returns and takes, whole …
yes<Fits<Queue, cf.Queue>>();
yes<Fits<cf.Queue, Queue>>();
yes<Fits<cf.QueueSendOptions, NonNullable<Parameters<Queue['send']>[1]>>>();
yes<Fits<cf.QueueSendBatchOptions, NonNullable<Parameters<Queue['sendBatch']>[1]>>>();
yes<Fits<Iterable<cf.MessageSendRequest>, Parameters<Queue['sendBatch']>[0]>>();
yes<Fits<cf.QueueRetryOptions, NonNullable<Parameters<Message['retry']>[0]>>>();
// … and of the context these; README.md says which are not there.
yes<Fits<ExecutionContext, Pick<cf.ExecutionContext<Record<string, unknown>>, 'waitUntil' | 'passThroughOnException' | 'props'>>>();
yes<Fits<Pick<cf.ExecutionContext, 'waitUntil'>, Pick<ExecutionContext, 'waitUntil'>>>();

// @ts-expect-error: a message of numbers is none of orders, so the checks above compare something.
yes<Fits<cf.Message<number>, cf.Message<Order>>>();

// A Worker typed with this package alone.
const plain: WorkerModule = {
  async queue(batch, env, ctx) {
    ctx.waitUntil((env.ORDERS as Queue).send(batch.messages[0]?.body));
    batch.messages[0]?.retry();
    batch.retryAll();
  },
};

const bindings: BindingsModule = {
  default: async (env: Bindings) => ({ STORE: new Map(Object.entries(env)) }),
  close() {},
};

export { bindings, plain, worker };
