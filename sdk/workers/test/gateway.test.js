// Refusals of the gateway, what is tried again, and what is not.

import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';

import { post, refusal, startGateway, startWorker, until } from './support.js';

/** Sends what the path says, and answers with what came of it. */
const SENDER = `export default { async fetch(request, env) {
  const [, binding, count, size] = new URL(request.url).pathname.split('/');
  const body = size ? 'x'.repeat(Number(size)) : { order: 17 };
  const sends = Array.from({ length: Number(count ?? 1) }, () => env[binding].send(body).then(
    (returned) => ({ returned }), (error) => ({ name: error.name, message: error.message, code: error.code })));
  return Response.json({ outcomes: await Promise.all(sends) });
} };`;

const SENT = { returned: { metadata: { metrics: { backlogCount: 3, backlogBytes: 4, oldestMessageTimestamp: '2026-11-23T22:37:00.076Z' } } } };

async function startSender(t, gateway, env = {}) {
  const program = await startWorker(t, SENDER, { args: ['--queue', 'ORDERS=orders', '--gateway', gateway], env });
  const send = async (path = '/ORDERS') => (await post(program.fetchPort, path, {}, undefined, { method: 'GET' })).verdict.outcomes;
  return Object.assign(send, { program });
}

test('a send is answered with the backlog', async (t) => {
  const gateway = await startGateway(t, [{}, { result: { metadata: { metrics: { backlog_count: 0, backlog_bytes: 0, oldest_message_timestamp_ms: 0 } } } }]);
  const send = await startSender(t, gateway.url);
  assert.deepEqual(await send(), [SENT]);
  const [{ method, path, headers, text }] = gateway.requests;
  assert.deepEqual([method, path, headers['content-type']], ['POST', '/queues/orders/messages', 'application/json']);
  assert.equal(text, '{"body":{"order":17},"content_type":"json"}');
  assert.deepEqual(await send(), [{ returned: { metadata: { metrics: { backlogCount: 0, backlogBytes: 0 } } } }], 'zero is no time');
});

test('the gateway may be below a path, as a broker is', async (t) => {
  const gateway = await startGateway(t);
  for (const end of ['', '/']) {
    const send = await startSender(t, `${gateway.url}/client/v4/accounts/shop${end}`);
    assert.deepEqual(await send(), [SENT]);
  }
  const paths = gateway.requests.map((request) => request.path);
  assert.deepEqual(paths, Array(2).fill('/client/v4/accounts/shop/queues/orders/messages'));
});

test('a refusal is an error with its cause and number, and is not tried again', async (t) => {
  const gateway = await startGateway(t);
  const send = await startSender(t, gateway.url);
  const refusals = [
    [400, 10204, 'body: message length of 128001 bytes exceeds limit of 128000'],
    [404, 10104, 'queue "orders" not found'],
    [409, 10252, 'delivery is paused'],
    [422, 10280, 'the idempotency key is that of another send'],
    [500, 15000, 'the broker failed'],
  ];
  for (const [status, code, message] of refusals) {
    gateway.requests.length = 0;
    gateway.answers = [refusal(status, code, message, { 'retry-after': '0' })];
    assert.deepEqual(await send(), [{ name: 'QueueError', message: `${message} (${code})`, code }]);
    assert.equal(gateway.requests.length, 1, message);
  }
});

test('an answer without envelope is an error', async (t) => {
  const gateway = await startGateway(t);
  const send = await startSender(t, gateway.url);
  const answers = [
    [{ status: 502, text: '<html>' }, 'the gateway answered 502 (15000)'],
    [{ status: 200, text: 'fine' }, 'the gateway answered 200 (15000)'],
    [{ status: 200, text: '{"success":false}' }, 'the gateway answered 200 (15000)'],
    [{ status: 200, text: 'null' }, 'the gateway answered 200 (15000)'],
    [{ status: 302, headers: { location: '/' }, text: '' }, 'the gateway answered 302 (15000)'],
  ];
  for (const [answer, message] of answers) {
    gateway.answers = [answer];
    assert.deepEqual(await send(), [{ name: 'QueueError', message, code: 15000 }]);
  }
});

test('what had no room is tried again, no sooner than asked', async (t) => {
  // The broker's answer, and that of a gateway.
  for (const status of [429, 503]) {
    const full = refusal(status, 10250, 'too much waits', { 'retry-after': '1' });
    const gateway = await startGateway(t, [full]);
    const send = await startSender(t, gateway.url);
    const began = performance.now();
    assert.deepEqual(await send(), [SENT]);
    assert.equal(gateway.requests.length, 2);
    assert.ok(performance.now() - began >= 1000, 'Retry-After was 1 s');
    assert.equal(new Set(gateway.requests.map((request) => request.text)).size, 1);
  }
});

test('what has no room for long is an error', async (t) => {
  const gateway = await startGateway(t, [refusal(429, 10251, 'storage limit exceeded', { 'retry-after': '60' })]);
  const send = await startSender(t, gateway.url);
  assert.deepEqual(await send(), [{ name: 'QueueError', message: 'storage limit exceeded (10251)', code: 10251 }]);
  assert.equal(gateway.requests.length, 1);
});

test('a gateway that does not listen yet is waited for', async (t) => {
  const port = await freePort();
  const send = await startSender(t, `http://127.0.0.1:${port}`, { CAPSTAN_LOG: 'debug' });
  const sending = send();
  await send.program.line('a send is tried again');
  const server = net.createServer((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{"success":true,"result":{}}'));
  });
  t.after(() => server.close());
  server.listen(port, '127.0.0.1');
  assert.deepEqual(await sending, [{ returned: { metadata: { metrics: { backlogCount: 0, backlogBytes: 0 } } } }]);
});

test('a gateway that never listens is named', async (t) => {
  const port = await freePort();
  const send = await startSender(t, `http://localhost:${port}`);
  const [{ name, message, code }] = await send();
  assert.deepEqual([name, code], ['QueueError', 15000]);
  assert.equal(message, `no connection to the gateway at http://localhost:${port}: ECONNREFUSED (15000)`);
});

test('what may have been stored is tried again with its key, and each send has its own', async (t) => {
  const away = refusal(503, 15000, 'the broker did not take this in time');
  const gateway = await startGateway(t, ['cut', away, 'half', {}, {}]);
  const send = await startSender(t, gateway.url);
  assert.deepEqual(await send(), [SENT]);
  assert.equal(gateway.requests.length, 4);
  assert.deepEqual(await send(), [SENT]);
  const keys = gateway.requests.map((request) => request.headers['idempotency-key']);
  assert.match(keys[0], /^"[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}"$/);
  assert.deepEqual(keys.slice(0, 4), Array(4).fill(keys[0]));
  assert.equal(new Set(keys).size, 2);
  assert.equal(new Set(gateway.requests.map((request) => request.text)).size, 1);
});

test('a batch is one send with one key, and a look at the backlog has none', async (t) => {
  const worker = `export default { async fetch(request, env) {
    await env.ORDERS.sendBatch([{ body: 1 }, { body: 2 }]);
    return Response.json(await env.ORDERS.metrics());
  } };`;
  const gateway = await startGateway(t, ['cut', {}, { result: { backlog_count: 0, backlog_bytes: 0 } }]);
  const { fetchPort } = await startWorker(t, worker, { args: ['--queue', 'ORDERS=orders', '--gateway', gateway.url] });
  assert.equal((await post(fetchPort, '/', {}, undefined, { method: 'GET' })).status, 200);
  const [first, second, look, ...others] = gateway.requests.map((request) => request.headers['idempotency-key']);
  assert.match(first, /^"[\da-f-]{36}"$/);
  assert.deepEqual([second, look, others], [first, undefined, []]);
});

test('a connection that breaks again and again says that nobody knows', async (t) => {
  const gateway = await startGateway(t, Array(100).fill('cut'));
  const send = await startSender(t, gateway.url);
  const [{ name, message, code }] = await send();
  assert.deepEqual([name, code], ['QueueError', 15000]);
  assert.match(message, /^no answer of the gateway at http:\/\/127.0.0.1:\d+, so it is not known whether it was stored: socket hang up/);
  assert.ok(gateway.requests.length > 1 && gateway.requests.length < 50, `${gateway.requests.length} tries within 5 s`);
});

test('a broker without room for keys gets the send without one, which is not tried again once it may be stored', async (t) => {
  const full = refusal(429, 10281, 'too many idempotency keys', { 'retry-after': '60' });
  const gateway = await startGateway(t, [full, {}, full, 'cut']);
  const send = await startSender(t, gateway.url);
  assert.deepEqual(await send(), [SENT]);
  assert.match((await send())[0].message, /so it is not known whether it was stored/);
  const keys = gateway.requests.map((request) => typeof request.headers['idempotency-key']);
  assert.deepEqual(keys, ['string', 'undefined', 'string', 'undefined']);
});

test('connections are kept, and no more than 64 are open', async (t) => {
  const gateway = await startGateway(t);
  const send = await startSender(t, gateway.url);
  const outcomes = await send('/ORDERS/500');
  assert.deepEqual([outcomes.length, new Set(outcomes.map((one) => JSON.stringify(one))).size], [500, 1]);
  assert.deepEqual(outcomes[0], SENT);
  const ports = new Set(gateway.ports);
  assert.ok(ports.size > 1 && ports.size <= 64, `${ports.size} connections`);
});

test('sends are bounded in bytes: each, and all that are open', async (t) => {
  const gateway = await startGateway(t);
  const send = await startSender(t, gateway.url);
  const [{ message }] = await send(`/ORDERS/1/${1024 * 1024}`);
  assert.equal(message, 'body: message length of 1048578 bytes exceeds limit of 1048576 (10204)');
  assert.equal(gateway.requests.length, 0);
  const outcomes = await send(`/ORDERS/70/${1_000_000}`);
  const refused = outcomes.filter((one) => one.name);
  assert.deepEqual([outcomes.length - refused.length, refused.length], [67, 3]);
  assert.match(refused[0].message, /^sends of more than 67108864 bytes are open: wait for some of them \(10250\)$/);
  assert.deepEqual(await send(`/ORDERS/1/${1_000_000}`), [SENT], 'the bytes of what was sent are free again');
});

test('an answer that has no end is not read', async (t) => {
  const gateway = await startGateway(t, [{ text: ' '.repeat(2 * 1024 * 1024) }]);
  const send = await startSender(t, gateway.url);
  assert.match((await send())[0].message, /its answer is longer than 1048576 bytes/);
});

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  const port = await until('a port', () => server.address()?.port);
  await new Promise((resolve) => server.close(resolve));
  return port;
}
