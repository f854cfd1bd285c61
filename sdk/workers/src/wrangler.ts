// Reads what a Worker's configuration says: variables, queues to send to, and which other bindings there must be.

import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

import { ConfigError } from './errors.js';
import { parseJsonc } from './jsonc.js';
import { CONFIG_BYTES_MAX, DELAY_SECONDS_MAX } from './limits.js';
import { parseToml } from './toml.js';

/** The names that are looked for, in the order in which wrangler does. */
export const NAMES = ['wrangler.json', 'wrangler.jsonc', 'wrangler.toml'];

/** Sections that apply to an environment only when it has them itself. */
const NOT_INHERITED = ['vars', 'queues'];
/** Sections that are no bindings, whatever is in them. */
const NO_BINDINGS = ['queues', 'vars', 'env'];

export interface ProducerSection {
  binding: string;
  queue: string;
  delaySeconds?: number;
}

/** What a file says, for one of its environments. */
export interface Wrangler {
  /** The module, as an absolute path. */
  main: string | undefined;
  vars: Record<string, unknown>;
  producers: ProducerSection[];
  /** Queues that it consumes: a Consumer says so here, and how. */
  consumed: string[];
  /** Other bindings that the Worker expects, and the section that names each. */
  bindings: Map<string, string>;
  compatibilityDate: string | undefined;
  compatibilityFlags: string[];
}

type Section = Record<string, unknown>;

/**
 * Reads `file`.
 *
 * @throws ConfigError when it cannot be read, or says something of the wrong type
 */
export function readWrangler(file: string, environment: string | undefined): Wrangler {
  const whole = section(parse(file), file, '');
  const own = environment === undefined ? {} : environmentOf(whole, environment, file);
  // An environment inherits what describes the program, and none of its bindings.
  const inherited = environment === undefined ? whole : withoutBindings(whole);
  const all: Section = { ...inherited, ...own };
  const queues = section(all.queues ?? {}, file, 'queues');
  const main = text(all.main, file, 'main');
  return {
    main: main === undefined ? undefined : resolve(dirname(file), main),
    vars: section(all.vars ?? {}, file, 'vars'),
    producers: list(queues.producers, file, 'queues.producers').map((one, index) => producer(one, file, index)),
    consumed: list(queues.consumers, file, 'queues.consumers').map((one) => String(one.queue)),
    bindings: bindingsOf(all),
    compatibilityDate: text(all.compatibility_date, file, 'compatibility_date'),
    compatibilityFlags: texts(all.compatibility_flags, file, 'compatibility_flags'),
  };
}

function parse(file: string): unknown {
  let source: string;
  try {
    const { size } = statSync(file);
    if (size > CONFIG_BYTES_MAX) throw new ConfigError(`${file}: ${size} bytes are more than ${CONFIG_BYTES_MAX}`);
    source = readFileSync(file, 'utf8');
  } catch (error) {
    throw error instanceof ConfigError ? error : new ConfigError(`${file}: ${(error as Error).message}`);
  }
  try {
    return file.endsWith('.toml') ? parseToml(source) : parseJsonc(source);
  } catch (error) {
    throw new ConfigError(`${file}: ${(error as Error).message}`);
  }
}

function environmentOf(whole: Section, name: string, file: string): Section {
  const all = section(whole.env ?? {}, file, 'env');
  if (!Object.hasOwn(all, name)) {
    const names = Object.keys(all).join(', ') || 'none';
    throw new ConfigError(`${file}: env.${name} is not there; --env takes one of: ${names}`);
  }
  return section(all[name], file, `env.${name}`);
}

function withoutBindings(whole: Section): Section {
  const kept = ([key, value]: [string, unknown]) => !NOT_INHERITED.includes(key) && namesOf(key, value).length === 0;
  return Object.fromEntries(Object.entries(whole).filter(kept));
}

function bindingsOf(all: Section): Map<string, string> {
  const named = Object.entries(all).flatMap(([key, value]) => namesOf(key, value).map((name) => [name, key] as const));
  return new Map(named);
}

/** Names of the bindings in a section: each kind has one object or a list of them, with `binding` or, for two, `name`. */
function namesOf(key: string, value: unknown): string[] {
  if (NO_BINDINGS.includes(key)) return [];
  const listed = key === 'durable_objects' ? (value as Section | null)?.bindings : value;
  const field = key === 'durable_objects' || key === 'send_email' ? 'name' : 'binding';
  const names = (Array.isArray(listed) ? listed : [listed]).map((one) => (isSection(one) ? one[field] : undefined));
  return names.filter((name) => typeof name === 'string');
}

function producer(one: Section, file: string, index: number): ProducerSection {
  const where = `queues.producers[${index}]`;
  const binding = text(one.binding, file, `${where}.binding`);
  const queue = text(one.queue, file, `${where}.queue`);
  if (binding === undefined || queue === undefined) {
    throw new ConfigError(`${file}: ${where} needs a binding and a queue`);
  }
  const delay = one.delivery_delay;
  if (delay === undefined) return { binding, queue };
  if (typeof delay !== 'number' || !Number.isInteger(delay) || delay < 0 || delay > DELAY_SECONDS_MAX) {
    throw new ConfigError(`${file}: ${where}.delivery_delay is not 0 to ${DELAY_SECONDS_MAX}`);
  }
  return { binding, queue, delaySeconds: delay };
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function section(value: unknown, file: string, name: string): Section {
  if (!isSection(value)) throw new ConfigError(`${file}: ${name || 'it'} is no object`);
  return value;
}

function list(value: unknown, file: string, name: string): Section[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new ConfigError(`${file}: ${name} is no list`);
  return value.map((one, index) => section(one, file, `${name}[${index}]`));
}

function text(value: unknown, file: string, name: string): string | undefined {
  if (value === undefined || typeof value === 'string') return value;
  throw new ConfigError(`${file}: ${name} is no text`);
}

function texts(value: unknown, file: string, name: string): string[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value;
  throw new ConfigError(`${file}: ${name} is no list of texts`);
}
