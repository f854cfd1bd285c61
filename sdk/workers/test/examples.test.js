// The example programs, run by the command with a scripted sidecar and gateway.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';

import { deliver, folderOf, here, post, refusal, startGateway, startWorker } from './support.js';

const example = (name) => here(`../../../examples/workers/${name}`);

/** Starts an example as its Dockerfile does. Everything that it stores is below `data`. */
async function startExample(t, name, { bindings = 'bindings.js', answers } = {}) {
  const gateway = await startGateway(t, answers);
  const data = folderOf(t, {});
  const dockerfile = readFileSync(join(example(name), 'Dockerfile'), 'utf8');
  assert.match(dockerfile, /^FROM capstan\/workers:\S+\nCOPY \. \.\nCMD \["--bindings", "bindings.js"\]\n$/);
  const env = { STORE_FOLDER: data, WAREHOUSE_FOLDER: data };
  const args = ['--bindings', bindings, '--gateway', gateway.url];
  const program = await startWorker(t, undefined, { cwd: example(name), args, env });
  const request = (method, path, body) => post(program.fetchPort, path, {}, body === undefined ? undefined : JSON.stringify(body), { method });
  return { gateway, program, data, request };
}

let count = 0;

/** The messages that were sent to `queue` and not yet taken, as the sidecar hands them over. */
function take(gateway, queue) {
  const own = gateway.requests.filter(({ path }) => path.startsWith(`/queues/${queue}/messages`));
  gateway.requests = gateway.requests.filter((request) => !own.includes(request));
  const sent = own.flatMap(({ body }) => body.messages ?? [body]);
  return sent.map(({ body, content_type: contentType }) => {
    count += 1;
    return { id: `id-${count}`, timestampMs: 1795473420076, attempts: 1, contentType, body, attributes: {} };
  });
}

test('orders: an order is taken, handled once and shown', async (t) => {
  const { gateway, program, request } = await startExample(t, 'orders');
  assert.equal((await request('POST', '/orders', { colour: 'red' })).status, 400);
  const { status, verdict } = await request('POST', '/orders', { item: 'lamp' });
  assert.equal(status, 202);
  const path = `/orders/${verdict.id}`;
  assert.equal((await request('GET', path)).status, 404, 'it waits in the queue');
  const messages = take(gateway, 'orders');
  assert.deepEqual(messages.map(({ body }) => body), [{ id: verdict.id, item: 'lamp' }]);
  for (const attempts of [1, 2]) {
    const answer = await deliver(program, messages.map((message) => ({ ...message, attempts })));
    assert.deepEqual([answer.status, answer.verdict.explicitAcks], [200, [messages[0].id]]);
    const { item, shop } = (await request('GET', path)).verdict;
    assert.deepEqual([item, shop], ['lamp', 'lamps']);
  }
});

test('orders: an order that cannot be handled comes again, later each time, and holds up no other', async (t) => {
  const broken = join(folderOf(t, { 'broken.mjs': `export default { STORE: {
    get: async () => null,
    put: async (id) => { if (id === 'bad') throw new Error('the store is away'); },
  } };` }), 'broken.mjs');
  const { program } = await startExample(t, 'orders', { bindings: broken });
  const common = { timestampMs: 1, contentType: 'json', attributes: {} };
  const messages = [
    { ...common, id: 'm1', attempts: 3, body: { id: 'bad', item: 'lamp' } },
    { ...common, id: 'm2', attempts: 1, body: { id: 'good', item: 'lamp' } },
  ];
  const { verdict } = await deliver(program, messages);
  assert.deepEqual([verdict.retryMessages, verdict.explicitAcks], [[{ msgId: 'm1', delaySeconds: 8 }], ['m2']]);
});

test('orders: a queue without room is the client\'s to see', async (t) => {
  const full = refusal(429, 10251, 'storage limit exceeded', { 'retry-after': '60' });
  const { request } = await startExample(t, 'orders', { answers: [full] });
  assert.equal((await request('POST', '/orders', { item: 'lamp' })).status, 500);
});

const reading = (n) => ({ sensor: `S-${n}`, fahrenheit: 212, at: '2026-11-28T06:00:00Z' });

test('etl: a spike is taken at once and written in batches; what is no reading goes elsewhere', async (t) => {
  const { gateway, program, data, request } = await startExample(t, 'etl');
  const readings = Array.from({ length: 250 }, (_, n) => (n === 7 ? { sensor: 5 } : reading(n)));
  const { status, verdict } = await request('POST', '/readings', readings);
  assert.deepEqual([status, verdict], [202, { taken: 250 }]);
  const messages = take(gateway, 'readings');
  assert.equal(messages.length, 250);
  for (let at = 0; at < messages.length; at += 100) {
    assert.equal((await deliver(program, messages.slice(at, at + 100), { queue: 'readings' })).status, 200);
  }
  const files = readdirSync(join(data, 'readings')).sort();
  assert.equal(files.length, 3);
  const rows = files.flatMap((file) => readFileSync(join(data, 'readings', file), 'utf8').trim().split('\n')).map((row) => JSON.parse(row));
  assert.deepEqual(new Set(rows.map((row) => row.id)).size, 249);
  const row = rows.find(({ sensor }) => sensor === 's-0');
  assert.deepEqual([row.celsius, row.at], [100, '2026-11-28T06:00:00.000Z']);
  const rejected = take(gateway, 'readings-rejected');
  assert.deepEqual(rejected.map(({ body }) => body), [{ id: messages[7].id, reading: { sensor: 5 } }]);
  // The same batch again is the same object.
  await deliver(program, messages.slice(0, 100), { queue: 'readings' });
  assert.deepEqual(readdirSync(join(data, 'readings')).sort(), files);
});

test('etl: a warehouse that is busy is left alone, longer each time, and then gets everything', async (t) => {
  const busy = join(folderOf(t, { 'busy.mjs': `let puts = 0;
    export default { WAREHOUSE: { put: async (key, text) => {
      puts += 1;
      if (puts < 3) throw new Error('503 slow down');
      console.log(key, text.split('\\n').length - 1);
    } } };` }), 'busy.mjs');
  const { gateway, program, request } = await startExample(t, 'etl', { bindings: busy });
  await request('POST', '/readings', [reading(1), reading(2)]);
  const messages = take(gateway, 'readings');
  const delays = [];
  for (const attempts of [1, 2, 3]) {
    const { status, verdict } = await deliver(program, messages.map((message) => ({ ...message, attempts })), { queue: 'readings' });
    assert.equal(status, 200);
    delays.push(verdict.retryBatch);
  }
  assert.deepEqual(delays, [{ retry: true, delaySeconds: 10 }, { retry: true, delaySeconds: 20 }, { retry: false }]);
  await program.stop();
  assert.match(program.out, /^readings\/id-\d+.ndjson 2\n$/);
  assert.match(program.err, /2 readings wait: 503 slow down/);
});

test('etl: what is no list of readings is refused', async (t) => {
  const { gateway, request } = await startExample(t, 'etl');
  assert.equal((await request('POST', '/readings', { sensor: 1 })).status, 400);
  assert.equal((await request('GET', '/readings')).status, 404);
  assert.equal(gateway.requests.length, 0);
});

/** A site whose pages link to each other; /busy answers 503 the first time. */
async function startSite(t) {
  const links = {
    '/': ['/a', '/b#part', '/a', 'https://elsewhere.example/', 'mailto:x@y', 'http://['],
    '/a': ['/', '/busy', 'b'],
    '/b': ['/c', '/missing'],
    '/busy': [],
    '/c': ['/d'],
    '/d': ['/e'],
    '/e': [],
  };
  const hits = {};
  const server = http.createServer((request, response) => {
    hits[request.url] = (hits[request.url] ?? 0) + 1;
    if (request.url === '/busy' && hits['/busy'] === 1) return response.writeHead(503, { 'retry-after': '42' }).end();
    const page = links[request.url];
    if (page === undefined) return response.writeHead(404).end();
    const anchors = page.map((href) => `<a class="x" href="${href}">go</a>`).join('\n');
    return response.writeHead(200, { 'content-type': 'text/html' }).end(`<title> Page ${request.url}</title>${anchors}`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, hits };
}

test('crawler: it feeds its own queue until all is read, each page once', async (t) => {
  const site = await startSite(t);
  const { gateway, program, request } = await startExample(t, 'crawler');
  assert.equal((await request('POST', '/crawl', { url: 'no url' })).status, 400);
  assert.equal((await request('POST', '/crawl', { url: site.url })).status, 202);
  const retries = [];
  const waiting = take(gateway, 'crawl');
  while (waiting.length > 0) {
    const batch = waiting.splice(0, 10);
    const { status, verdict } = await deliver(program, batch, { queue: 'crawl' });
    assert.equal(status, 200, program.err);
    assert.equal(verdict.explicitAcks.length + verdict.retryMessages.length, batch.length);
    for (const { msgId, delaySeconds } of verdict.retryMessages) {
      retries.push(delaySeconds);
      waiting.push(batch.find(({ id }) => id === msgId));
    }
    waiting.push(...take(gateway, 'crawl'));
  }
  assert.deepEqual(retries, [42], 'as long as the site asked for');
  const paths = ['/', '/a', '/b', '/busy', '/c', '/d', '/missing'];
  assert.deepEqual((await request('GET', '/pages')).text, JSON.stringify(paths.map((path) => site.url + path)));
  assert.deepEqual(site.hits, { '/': 1, '/a': 1, '/b': 1, '/busy': 2, '/c': 1, '/d': 1, '/missing': 1 }, '/e is too deep');
});

test('crawler: a site that is away is tried again later, longer each time', async (t) => {
  const { program } = await startExample(t, 'crawler');
  // Nothing listens on port 1.
  const message = { id: 'm1', timestampMs: 1, attempts: 2, contentType: 'json', body: { url: 'http://127.0.0.1:1/', depth: 0 }, attributes: {} };
  const { status, verdict } = await deliver(program, [message], { queue: 'crawl' });
  assert.deepEqual([status, verdict.retryMessages], [200, [{ msgId: 'm1', delaySeconds: 40 }]]);
});
