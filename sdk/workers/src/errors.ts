// Errors that reach a user of the package.

/** Something of the command line, the environment or a file is wrong; the message says what to do. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** A send was refused, or nobody knows whether it was stored. */
export class QueueError extends Error {
  override readonly name = 'QueueError';
  /** Cloudflare's number, such as 10204. */
  readonly code: number;

  constructor(cause: string, code: number) {
    super(`${cause} (${code})`);
    this.code = code;
  }
}

/** Numbers of refusals that are made here, before anything is sent, or that mean something here. */
export const codes = {
  batchDelay: 10202,
  messageMetadata: 10203,
  messageSize: 10204,
  batchCount: 10206,
  overloaded: 10250,
  keysFull: 10281,
  unknown: 15000,
} as const;
