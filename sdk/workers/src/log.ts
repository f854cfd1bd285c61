// Log lines on standard error, each a JSON object. Bodies of messages are never in them.

const LEVELS = ['error', 'warn', 'info', 'debug'] as const;

export type Level = (typeof LEVELS)[number];

/** Longest text of an error in a line; a stack can be long, and a message can have an answer in it. */
const ERROR_CHARS_MAX = 8192;

// A pipe that nobody reads any more must not fail the Worker: each line about that would fail in turn, for ever.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

let threshold: number = LEVELS.indexOf('info');

export function isLevel(text: string): text is Level {
  return (LEVELS as readonly string[]).includes(text);
}

/** Lines below `level` are left out from now on. */
export function setLevel(level: Level): void {
  threshold = LEVELS.indexOf(level);
}

export function log(level: Level, message: string, fields: Record<string, unknown> = {}): void {
  if (LEVELS.indexOf(level) > threshold) return;
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...fields })}\n`);
}

/** What was thrown, as text: with its stack where there is one. */
export function describe(thrown: unknown): string {
  let text: string;
  try {
    text = thrown instanceof Error ? (thrown.stack ?? String(thrown)) : String(thrown);
  } catch {
    // Not everything that can be thrown can be a string: an object without a prototype, for one.
    text = Object.prototype.toString.call(thrown);
  }
  return text.length > ERROR_CHARS_MAX ? `${text.slice(0, ERROR_CHARS_MAX)}…` : text;
}
