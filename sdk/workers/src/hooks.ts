// How a Worker's imports are found: `cloudflare:workers`, and its own module, which is always an ES module.

import type { InitializeHook, LoadHook, ResolveHook } from 'node:module';

interface Data {
  /** The URL of the Worker's module. */
  module: string;
}

let own = '';

export const initialize: InitializeHook<Data> = ({ module }) => {
  own = module;
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

export const load: LoadHook = (url, context, next) => {
  // Bundlers write .js, often with no package.json beside it that would say which kind.
  return next(url, url === own && url.endsWith('.js') ? { ...context, format: 'module' } : context);
};
