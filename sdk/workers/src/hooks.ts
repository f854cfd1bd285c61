// How a Worker's imports are found: `cloudflare:workers`, and its own files, which may be ES modules whatever package.json says.

import { readFile } from 'node:fs/promises';
import type { InitializeHook, LoadHook, ResolveHook } from 'node:module';

interface Data {
  /** The URLs of the Worker's module and of the one with other bindings. */
  modules: string[];
}

/** A line that begins as only those of ES modules do. */
const IMPORT_OR_EXPORT = /^(import|export)[\s{*"']/m;

let own: string[] = [];

export const initialize: InitializeHook<Data> = ({ modules }) => {
  own = modules;
};

export const resolve: ResolveHook = (specifier, context, next) => {
  if (specifier === 'cloudflare:workers') {
    return { url: new URL('./cloudflare.js', import.meta.url).href, shortCircuit: true };
  }
  if (specifier.startsWith('cloudflare:')) {
    throw new Error(`${specifier} is not available in Capstan's runner: of the runtime's modules only cloudflare:workers is`);
  }
  return next(specifier, context);
};

export const load: LoadHook = async (url, context, next) => {
  const undecided = context.format !== 'module' && /^file:.*\.js$/.test(url) && !url.includes('/node_modules/');
  // Bundlers of Workers go by what is in a file. Node goes by package.json, and many say "commonjs" without a thought.
  const isModule = undecided && (own.includes(url) || IMPORT_OR_EXPORT.test(await readFile(new URL(url), 'utf8')));
  return next(url, isModule ? { ...context, format: 'module' } : context);
};
