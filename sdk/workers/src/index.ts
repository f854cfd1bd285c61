// Types for those who write a module of bindings, or a Worker without @cloudflare/workers-types.

export type { MessageBatch, QueueMessage as Message, RetryOptions } from './batch.js';
export type { ContentType } from './body.js';
export type { ExecutionContext } from './context.js';
export type { Queue, QueueMetrics, SendBatchOptions, SendOptions, SendRequest, SendResponse } from './queue.js';
export type { Bindings, BindingsModule, WorkerModule } from './worker.js';
