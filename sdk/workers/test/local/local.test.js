// The example programs, and every content type, end to end in local mode: real broker, real sidecar loop, real command.
//
// CAPSTAN=PATH npm run test:local, where PATH is the program `capstan`.

import assert from 'node:assert/strict';
import http from 'node:http';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { COMMAND, folderOf, here, post, start, until } from '../support.js';

const CAPSTAN = process.env.CAPSTAN ?? assert.fail('CAPSTAN names no program: set it to the path of `capstan`');

/** Runs the folder `cwd` in local mode, with the command as its application, and waits until batches can come. */
async function startLocal(t, cwd, args) {
  const data = folderOf(t, {});
  const quoted = [process.execPath, COMMAND, ...args, '--fetch-port', '0', '--host', '127.0.0.1'].map((one) => `'${one}'`).join(' ');
  const options = ['dev', '.', '--listen', '127.0.0.1:0', '--data', join(data, 'broker'), '--app-port', '0', '--app', `exec ${quoted}`];
  const env = { STORE_FOLDER: join(data, 'store'), WAREHOUSE_FOLDER: join(data, 'warehouse') };
  const program = start(t, options, { cwd, env, command: [CAPSTAN] });
  const listening = await until(
    () => `listening; it wrote\n${program.out}${program.err}`,
    () => (program.exit ? assert.fail(program.out + program.err) : /\{.*"message":"listening".*\}/.exec(program.out)?.[0]),
  );
  const { fetchPort } = JSON.parse(listening);
  const request = (method, path, body) => post(fetchPort, path, {}, body === undefined ? undefined : JSON.stringify(body), { method });
  // Its application ends with it, and all calls are finished.
  const end = async () => {
    assert.deepEqual(await program.end('SIGINT'), { code: 0, signal: null });
    assert.match(program.out, /"message":"ending"/);
  };
  return { program, data, request, end };
}

const example = (name) => here(`../../../examples/workers/${name}`);
const BINDINGS = ['--bindings', 'bindings.js'];

test('orders', async (t) => {
  const { request, end } = await startLocal(t, example('orders'), BINDINGS);
  const { status, verdict } = await request('POST', '/orders', { item: 'lamp' });
  assert.equal(status, 202);
  const order = await until('the order', async () => (await request('GET', `/orders/${verdict.id}`)).verdict);
  assert.deepEqual([order.item, order.shop], ['lamp', 'lamps']);
  await end();
});

test('etl', async (t) => {
  const { request, data, program, end } = await startLocal(t, example('etl'), BINDINGS);
  const readings = Array.from({ length: 1000 }, (_, n) => ({ sensor: `S-${n}`, fahrenheit: n === 5 ? 'hot' : n, at: '2026-11-28T06:00:00Z' }));
  assert.deepEqual((await request('POST', '/readings', readings)).verdict, { taken: 1000 });
  const folder = join(data, 'warehouse/readings');
  const rows = () =>
    (existsSync(folder) ? readdirSync(folder) : []).filter((name) => name.endsWith('.ndjson')).flatMap((name) => readFileSync(join(folder, name), 'utf8').trim().split('\n'));
  const all = await until(() => `999 rows, of ${rows().length}\n${program.out}`, () => (rows().length >= 999 ? rows() : undefined));
  assert.equal(new Set(all.map((row) => JSON.parse(row).sensor)).size, 999);
  await end();
});

test('crawler', async (t) => {
  const pages = 40;
  const hits = {};
  const site = http.createServer((request, response) => {
    const n = Number(request.url.slice(1));
    hits[n] = (hits[n] ?? 0) + 1;
    const links = [n * 3 + 1, n * 3 + 2, n * 3 + 3].filter((next) => next < pages).map((next) => `<a href="/${next}">${next}</a>`);
    response.end(`<title>${n}</title>${links.join('')}`);
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  t.after(() => site.close());
  t.after(() => site.closeAllConnections());
  const { request, end, program } = await startLocal(t, example('crawler'), BINDINGS);
  assert.equal((await request('POST', '/crawl', { url: `http://127.0.0.1:${site.address().port}/0` })).status, 202);
  await until(
    () => `all pages\n${program.out}`,
    async () => (JSON.parse((await request('GET', '/pages')).text).length === pages ? true : undefined),
  );
  assert.deepEqual(Object.values(hits), Array(pages).fill(1));
  await end();
});

const QUEUE = 'apiVersion: capstan.dev/v1alpha1\nkind: Queue\nmetadata: {name: things}\n';
const CONSUMER = `apiVersion: capstan.dev/v1alpha1
kind: Consumer
metadata: {name: things}
spec:
  queueRef: {name: things}
  targetRef: {kind: Deployment, name: things}
  endpoint: {port: 8080}
  maxBatchSize: 100
  maxWaitTime: 100ms
  maxRetries: 5
`;

/** Sends values of all kinds and keeps what arrives; the value with `again` is retried once, and `throws` fails its batch. */
const THINGS = `import { inspect } from 'node:util';
const arrived = [];
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/arrived') return Response.json(arrived);
    if (pathname === '/large') return Response.json({ error: await env.THINGS.send('x'.repeat(200_000)).then(() => null, (error) => error.message) });
    const sent = await env.THINGS.send({ json: [1, null, 'é\\ud800', '\\\\ud800 \\u{1f600}'] });
    await env.THINGS.send('text "é"\\n', { contentType: 'text' });
    await env.THINGS.send(new Uint8Array([0, 1, 255]), { contentType: 'bytes' });
    await env.THINGS.send({ at: new Date(0), big: 1n, map: new Map([[1, new Set(['x'])]]) }, { contentType: 'v8' });
    await env.THINGS.sendBatch([{ body: { again: true } }, { body: 'later', delaySeconds: 1 }], { delaySeconds: 0 });
    await env.THINGS.send({ throws: true });
    return Response.json({ metrics: sent.metadata.metrics, own: await env.THINGS.metrics() });
  },
  async queue(batch) {
    for (const message of batch.messages) {
      arrived.push([inspect(message.body, { breakLength: Infinity }), message.attempts, message.timestamp instanceof Date]);
      if (message.body.again && message.attempts === 1) message.retry({ delaySeconds: 1 });
      else if (!message.body.throws) message.ack();
    }
    if (batch.messages.some(({ body, attempts }) => body.throws && attempts === 1)) throw new Error('the others are acknowledged');
  },
};`;

test('every content type, delays, retries, refusals and metrics', async (t) => {
  const cwd = folderOf(t, { 'queue.yaml': QUEUE, 'consumer.yaml': CONSUMER, 'worker.js': THINGS });
  const { request, program, end } = await startLocal(t, cwd, ['worker.js', '--queue', 'THINGS=things', '--queue', 'OTHER=missing']);
  const { verdict, text, status } = await request('GET', '/');
  assert.equal(status, 200, text + program.out);
  assert.equal(verdict.metrics.backlogCount >= 1, true);
  assert.equal(Number.isInteger(verdict.own.backlogBytes), true);
  const large = (await request('GET', '/large')).verdict.error;
  assert.match(large, /length of 200002 bytes exceeds limit of 128000 \(10204\)$/);
  const arrived = await until(
    async () => `nine deliveries, of ${(await request('GET', '/arrived')).text}\n${program.out}`,
    async () => {
      const all = JSON.parse((await request('GET', '/arrived')).text);
      return all.length >= 9 ? all : undefined;
    },
  );
  const expected = [
    ["{ json: [ 1, null, 'é\ufffd', '\\\\ud800 \u{1f600}' ] }", 1],
    [`'text "é"\\n'`, 1],
    ['Uint8Array(3) [ 0, 1, 255 ]', 1],
    ["{ at: 1970-01-01T00:00:00.000Z, big: 1n, map: Map(1) { 1 => Set(1) { 'x' } } }", 1],
    ['{ again: true }', 1],
    ['{ again: true }', 2],
    ["'later'", 1],
    ['{ throws: true }', 1],
    ['{ throws: true }', 2],
  ];
  const sorted = (rows) => rows.map((row) => JSON.stringify(row)).sort();
  assert.deepEqual(sorted(arrived), sorted(expected.map((row) => [...row, true])));
  await end();
});
