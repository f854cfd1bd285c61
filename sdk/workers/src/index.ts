// Types for those who write a module of bindings, or a Worker without @cloudflare/workers-types.

import type { Queue as Sender } from './queue.js';

export type { MessageBatch, QueueMessage as Message, RetryOptions } from './batch.js';
export type { ContentType } from './body.js';
export type { ExecutionContext } from './context.js';
export type { QueueMetrics, SendBatchOptions, SendOptions, SendRequest, SendResponse } from './queue.js';
export type { Bindings, BindingsModule, WorkerModule } from './worker.js';

/** `env.QUEUE`, in the form of anything that sends: a test may use its own. */
export type Queue = Pick<Sender, keyof Sender>;
