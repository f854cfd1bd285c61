// What the command line, the environment and the Worker's own configuration say, checked once.

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

import type { ContentType } from './body.js';
import { ConfigError } from './errors.js';
import { END_SECONDS, END_SECONDS_MAX } from './limits.js';
import { isLevel, type Level } from './log.js';
import type { Producer } from './queue.js';
import { NAMES, readWrangler, type Wrangler } from './wrangler.js';

export const USAGE = `Usage: capstan-workers [MODULE] [OPTIONS]

Runs a Worker: hands the batches that Capstan's sidecar POSTs to its queue() handler, and serves its fetch() handler.
MODULE is an ES module with the handlers as its default export; "main" of the configuration when absent.

Options:
  --config FILE           the Worker's wrangler.json, .jsonc or .toml [default: the one in this folder]
  --env NAME              an environment of the configuration
  --queue BINDING=QUEUE   env.BINDING sends to QUEUE; may be given several times
  --var NAME=VALUE        env.NAME is VALUE; --var NAME takes it from the process's environment
  --bindings FILE         a module that supplies other bindings, such as databases
  --port PORT             where batches arrive [PORT, default: 8080]
  --path PATH             the path of the Consumer's endpoint [CAPSTAN_PATH, default: /]
  --fetch-port PORT       where fetch() is served [CAPSTAN_FETCH_PORT, default: 8787]
  --host ADDRESS          address of both [CAPSTAN_HOST, default: all]
  --gateway URL           what sends go to [CAPSTAN_GATEWAY_URL, default: http://127.0.0.1:9797]
  --end-seconds SECONDS   longest time to finish after SIGTERM [CAPSTAN_END_SECONDS, default: ${END_SECONDS}]
  --help                  print this

Environment: CAPSTAN_LOG is error, warn, info or debug.
`;

export interface Config {
  /** The Worker's module and the one with other bindings, as absolute paths. */
  module: string;
  bindings: string | undefined;
  producers: Map<string, Producer>;
  vars: Record<string, unknown>;
  /** Bindings that the configuration names and the module has to supply, with the section that names each. */
  required: Map<string, string>;
  /** Of Consumers; what it said of them is not used here. */
  consumed: string[];
  waitForWaitUntil: boolean;
  port: number;
  path: string;
  fetchPort: number;
  host: string | undefined;
  gateway: URL;
  endMs: number;
  level: Level;
}

type Environment = Record<string, string | undefined>;
type Options = ReturnType<typeof readOptions>['values'];

/**
 * Reads everything; undefined when only help was asked for.
 *
 * @throws ConfigError that names the option, variable or field
 */
export function readConfig(args: string[], environment: Environment, folder: string): Config | undefined {
  const { values, positionals } = readOptions(args);
  if (values.help) return undefined;
  if (positionals.length > 1) throw new ConfigError(`one MODULE is run, not ${positionals.join(' and ')}`);
  const wrangler = wranglerOf(values, folder);
  const named = positionals[0] === undefined ? wrangler?.main : resolve(folder, positionals[0]);
  if (named === undefined) throw new ConfigError('no MODULE, and no configuration with "main": name the Worker\'s module');
  const port = number('--port', values.port ?? environment.PORT ?? '8080', 0, 65_535);
  const fetchPort = number('--fetch-port', values['fetch-port'] ?? environment.CAPSTAN_FETCH_PORT ?? '8787', 0, 65_535);
  if (port === fetchPort && port !== 0) throw new ConfigError(`--port and --fetch-port are both ${port}`);
  const end = values['end-seconds'] ?? environment.CAPSTAN_END_SECONDS ?? String(END_SECONDS);
  return {
    module: existing('MODULE', named),
    bindings: values.bindings === undefined ? undefined : existing('--bindings', resolve(folder, values.bindings)),
    producers: producersOf(values.queue ?? [], wrangler),
    vars: { ...wrangler?.vars, ...varsOf(values.var ?? [], environment) },
    required: wrangler?.bindings ?? new Map(),
    consumed: wrangler?.consumed ?? [],
    waitForWaitUntil: !wrangler?.compatibilityFlags.includes('queue_consumer_no_wait_for_wait_until'),
    port,
    path: pathOf(values.path ?? environment.CAPSTAN_PATH ?? '/'),
    fetchPort,
    host: values.host ?? environment.CAPSTAN_HOST,
    gateway: gatewayOf(values.gateway, environment),
    endMs: number('--end-seconds', end, 0, END_SECONDS_MAX) * 1000,
    level: levelOf(environment.CAPSTAN_LOG ?? 'info'),
  };
}

function readOptions(args: string[]) {
  const one = { type: 'string' } as const;
  const several = { type: 'string', multiple: true } as const;
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        config: one,
        env: one,
        queue: several,
        var: several,
        bindings: one,
        port: one,
        path: one,
        'fetch-port': one,
        host: one,
        gateway: one,
        'end-seconds': one,
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}\n\n${USAGE}`);
  }
}

function wranglerOf(values: Options, folder: string): Wrangler | undefined {
  const found = values.config ?? NAMES.find((name) => existsSync(resolve(folder, name)));
  if (found !== undefined) return readWrangler(resolve(folder, found), values.env);
  if (values.env !== undefined) throw new ConfigError(`--env ${values.env} needs a configuration: name it with --config`);
  return undefined;
}

function producersOf(options: string[], wrangler: Wrangler | undefined): Map<string, Producer> {
  const contentType = contentTypeDefault(wrangler);
  const producers = new Map<string, Producer>();
  for (const { binding, ...rest } of wrangler?.producers ?? []) {
    queueName(rest.queue, `queues.producers of ${binding}`);
    if (producers.has(binding)) throw new ConfigError(`queues.producers: the binding ${binding} is there twice`);
    producers.set(binding, { ...rest, contentType });
  }
  for (const option of options) {
    const [, binding, queue] = /^([^=]+)=(.*)$/.exec(option) ?? [];
    if (binding === undefined || queue === undefined) throw new ConfigError(`--queue ${option}: BINDING=QUEUE was expected`);
    queueName(queue, `--queue ${option}`);
    const { delaySeconds } = producers.get(binding) ?? {};
    producers.set(binding, { queue, contentType, ...(delaySeconds === undefined ? {} : { delaySeconds }) });
  }
  return producers;
}

/** Workers of before 2024-03-18 send V8's format where none is named; a flag can say otherwise. */
function contentTypeDefault(wrangler: Wrangler | undefined): ContentType {
  const flags = wrangler?.compatibilityFlags ?? [];
  if (flags.includes('queues_json_messages')) return 'json';
  if (flags.includes('no_queues_json_messages')) return 'v8';
  return (wrangler?.compatibilityDate ?? '9999') >= '2024-03-18' ? 'json' : 'v8';
}

function queueName(name: string, where: string): void {
  if (name.length > 63 || !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(name)) {
    throw new ConfigError(`${where}: ${JSON.stringify(name)} is no name of a Queue: 1 to 63 of a-z, 0-9 and -`);
  }
}

function varsOf(options: string[], environment: Environment): Record<string, string> {
  const pairs = options.map((option): [string, string] => {
    const [, name = '', value] = /^([^=]*)(?:=([\s\S]*))?$/.exec(option) ?? [];
    const found = value ?? environment[name];
    if (name === '') throw new ConfigError(`--var ${option}: NAME=VALUE or NAME was expected`);
    if (found === undefined) throw new ConfigError(`--var ${name}: the environment has no ${name}`);
    return [name, found];
  });
  return Object.fromEntries(pairs);
}

function pathOf(text: string): string {
  if (!/^\/[^?#\s]*$/.test(text)) throw new ConfigError(`--path ${text}: a path that begins with / was expected`);
  return text;
}

function gatewayOf(option: string | undefined, environment: Environment): URL {
  const text = option ?? environment.CAPSTAN_GATEWAY_URL ?? 'http://127.0.0.1:9797';
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new ConfigError(`--gateway ${text}: a URL such as http://127.0.0.1:9797 was expected`);
  }
  return url;
}

function levelOf(text: string): Level {
  if (isLevel(text)) return text;
  throw new ConfigError(`CAPSTAN_LOG=${text}: error, warn, info or debug was expected`);
}

function number(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) throw new ConfigError(`${name} ${text}: ${min} to ${max} was expected`);
  return value;
}

function existing(name: string, file: string): string {
  if (!existsSync(file)) throw new ConfigError(`${name}: ${file} is not there`);
  return file;
}
