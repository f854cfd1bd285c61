#!/usr/bin/env node
// The command: reads its configuration, runs the Worker until a signal, and ends in order.

import { type Config, readConfig, USAGE } from './config.js';
import { Consumer } from './consumer.js';
import { Background, calls } from './context.js';
import { ConfigError } from './errors.js';
import { FetchServer } from './fetch.js';
import { Gateway } from './gateway.js';
import { describe, log, setLevel } from './log.js';
import { loadWorker } from './worker.js';

/** Exit codes: bad usage, an error that nothing caught, calls that were cut. */
const EXIT_USAGE = 64;
const EXIT_UNCAUGHT = 1;
const EXIT_CUT = 1;
/** What the module of bindings gets at least to end what it began. */
const CLOSE_MS_MIN = 1_000;

try {
  const config = readConfig(process.argv.slice(2), process.env, process.cwd());
  if (config === undefined) process.stdout.write(USAGE);
  else await run(config);
} catch (error) {
  const text = error instanceof ConfigError ? error.message : describe(error);
  process.stderr.write(`capstan-workers: ${text}\n`);
  process.exit(EXIT_USAGE);
}

async function run(config: Config): Promise<void> {
  setLevel(config.level);
  const gateway = new Gateway(config.gateway);
  const ended = watch();
  // A module may take its time to load, or never end: a signal ends it there, too, for nothing has begun.
  const worker = await Promise.race([loadWorker(config, gateway), ended]);
  if ('code' in worker) process.exit(worker.code);
  const background = new Background();
  const { port, host, path, waitForWaitUntil } = config;
  const consumer = new Consumer(worker, background, { port, host, path, waitForWaitUntil });
  const fetchServer = worker.handlesFetch ? new FetchServer(worker, background) : undefined;
  const ports = { port: await consumer.listen(), fetchPort: await fetchServer?.listen(config.fetchPort, host) };
  const queues = Object.fromEntries([...config.producers].map(([name, { queue }]) => [name, queue]));
  log('info', 'listening', { ...ports, path, handlesQueue: worker.handlesQueue, gateway: config.gateway.origin, queues });
  if (config.consumed.length > 0) {
    log('info', 'how these queues are consumed is said by Consumers, not by the configuration', { queues: config.consumed });
  }
  const { why, code } = await ended;
  log('info', 'ending', { why, calls: consumer.open, requests: fetchServer?.open ?? 0 });
  const deadline = performance.now() + config.endMs;
  const finished = Promise.all([consumer.end(), fetchServer?.end()]).then(() => background.idle());
  const whole = await inTime(finished, config.endMs);
  if (!whole) log('warn', 'cut: not all ended in time', { calls: consumer.open, requests: fetchServer?.open ?? 0, promises: background.size });
  await inTime(worker.close(), Math.max(deadline - performance.now(), CLOSE_MS_MIN));
  gateway.close();
  process.exit(whole ? code : EXIT_CUT);
}

/** Resolves when the process is to end: by a signal, or because of an error that no call accounts for. */
function watch(): Promise<{ why: string; code: number }> {
  // As in the Workers runtime, a rejection that nobody handles is logged, and fails nothing.
  process.on('unhandledRejection', (reason) => log('error', 'a rejection was not handled', { error: describe(reason) }));
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      let signals = 0;
      process.on(signal, () => {
        signals += 1;
        if (signals > 1) process.exit(signal === 'SIGINT' ? 130 : 143);
        resolve({ why: signal, code: 0 });
      });
    }
    process.on('uncaughtException', (error) => {
      // Thrown in a timer or callback of a call, it is that call's failure and nobody else's.
      const call = calls.getStore();
      if (call !== undefined) return call.fail('a callback of the handler failed', error);
      log('error', 'an error was not caught', { error: describe(error) });
      resolve({ why: 'an error was not caught', code: EXIT_UNCAUGHT });
    });
  });
}

/** Whether `work` ended within `ms`; what it throws is logged. */
async function inTime(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  const done = work.then(
    () => true,
    (error) => {
      log('error', 'ending failed', { error: describe(error) });
      return true;
    },
  );
  const whole = await Promise.race([done, late]);
  clearTimeout(timer);
  return whole;
}
