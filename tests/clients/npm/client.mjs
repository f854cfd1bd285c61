// What the scripts share: their arguments, and Cloudflare's SDK with nothing changed but its base URL.
import Cloudflare from 'cloudflare';

/** Reads `BASE_URL ACCOUNT QUEUE …` from the command line, or ends with how to call the script. */
export function readArguments(more = '') {
  const [baseURL, account, queue, ...rest] = process.argv.slice(2);
  if (!queue || !baseURL.replace(/\/$/, '').endsWith('/client/v4')) {
    console.error(`usage: node ${process.argv[1]} http://HOST:PORT/client/v4 ACCOUNT QUEUE ${more}`);
    process.exit(2);
  }
  return { baseURL, account, queue, rest };
}

/** The SDK as its users make it. */
export function connect(baseURL, options = {}) {
  return new Cloudflare({ apiToken: 'any', baseURL, ...options });
}

/** Prints one JSON document, which the caller reads. */
export function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
