// What a handler sees of a batch, and how the port of batches answers everything else.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';

import { Consumer } from '../dist/consumer.js';
import { Background } from '../dist/context.js';
import { isLocal } from '../dist/listen.js';
import { deliver, messagesOf, NOTHING_SAID, post, startWorker, until } from './support.js';

test('a handler sees what the sidecar sent', async (t) => {
  const program = await startWorker(
    t,
    `let self;
    export default self = { queue(batch, env, ctx) {
      const tries = (f) => { try { f(); return 'done'; } catch (error) { return error.name; } };
      const [message] = batch.messages;
      console.log(JSON.stringify({
        batch, keys: Object.keys(message), isDate: message.timestamp instanceof Date, isArray: Array.isArray(batch.messages),
        write: tries(() => { message.body = 1; }), rename: tries(() => { batch.queue = 'other'; }), own: this === self,
        ctx: [typeof ctx.waitUntil, typeof ctx.passThroughOnException, JSON.stringify(ctx.props)], env,
        returned: [typeof message.ack(), typeof batch.messages[1].retry(), typeof batch.ackAll(), typeof batch.retryAll()],
      }));
    } };`,
    { args: ['--var', 'COLOUR=red'] },
  );
  const messages = messagesOf([{ order: 17 }, null], { attempts: 3, attributes: { traceparent: '00-1-2-01' } });
  const metrics = { backlogCount: 12, backlogBytes: 345, oldestMessageTimestampMs: 1795473420076 };
  const { status, headers, verdict } = await deliver(program, messages, { metadata: { metrics } });
  assert.deepEqual([status, headers['content-type']], [200, 'application/json']);
  assert.deepEqual(verdict, { ...NOTHING_SAID, ackAll: true, explicitAcks: ['m1'], retryMessages: [{ msgId: 'm2' }] });
  const seen = JSON.parse(await until('a line', () => (program.out.endsWith('\n') ? program.out : undefined)));
  const timestamp = '2026-11-23T22:37:00.076Z';
  const attributes = { traceparent: '00-1-2-01' };
  assert.deepEqual(seen.batch, {
    metadata: { metrics: { backlogCount: 12, backlogBytes: 345, oldestMessageTimestamp: timestamp } },
    queue: 'orders',
    messages: [
      { attempts: 3, body: { order: 17 }, timestamp, id: 'm1', attributes },
      { attempts: 3, body: null, timestamp, id: 'm2', attributes },
    ],
  });
  assert.deepEqual(seen.keys, ['attempts', 'body', 'timestamp', 'id', 'attributes']);
  assert.deepEqual([seen.isDate, seen.isArray, seen.own], [true, true, true]);
  assert.deepEqual([seen.write, seen.rename], ['TypeError', 'TypeError']);
  assert.deepEqual(seen.ctx, ['function', 'function', '{}']);
  assert.deepEqual(seen.env, { COLOUR: 'red' });
  assert.deepEqual(seen.returned, ['undefined', 'undefined', 'undefined', 'undefined']);
});

// What JSON cannot say of a body is said by this text.
const SHOW = `import { inspect } from 'node:util';
export default { queue(batch) {
  for (const { id, body } of batch.messages) console.log(id, inspect(body, { breakLength: Infinity }), body?.buffer?.byteLength ?? '');
} };`;

test('each content type becomes what the Workers runtime makes of it', async (t) => {
  const program = await startWorker(t, SHOW);
  const bodies = [
    ['json', [1, { nested: [] }, 'é']],
    ['json', null],
    ['text', 'say "hi"\n'],
    ['text', ''],
    ['bytes', 'AAEC/w=='],
    ['bytes', ''],
    // Written by the runtime itself: test/runtime/recorded.json.
    ['v8', '/w9vIgJhdEQAAAAAAAAAACIDYmlnWhABAAAAAAAAACIDc2V0J0kCLAEiBWJ5dGVzQgIBAlZCAAIAewQ='],
  ];
  const messages = bodies.map(([contentType, body], index) => ({ ...messagesOf([body])[0], id: `m${index}`, contentType }));
  const { status, verdict } = await deliver(program, messages);
  assert.deepEqual([status, verdict], [200, NOTHING_SAID]);
  const lines = await until('seven lines', () => (program.out.split('\n').length > 7 ? program.out.trimEnd().split(/ *\n/) : undefined));
  assert.deepEqual(lines, [
    `m0 [ 1, { nested: [] }, 'é' ]`,
    'm1 null',
    `m2 'say "hi"\\n'`,
    `m3 ''`,
    // A plain Uint8Array with memory of its own, and no Buffer.
    'm4 Uint8Array(4) [ 0, 1, 2, 255 ] 4',
    'm5 Uint8Array(0) [] 0',
    'm6 { at: 1970-01-01T00:00:00.000Z, big: 1n, set: Set(1) { 1 }, bytes: Uint8Array(2) [ 1, 2 ] }',
  ]);
});

test('a body that cannot be read is retried alone, and is not logged', async (t) => {
  const program = await startWorker(t, `export default { queue(batch) { console.log(batch.messages.length); for (const m of batch.messages) m.ack(); } };`);
  const secret = 'c2VjcmV0';
  const messages = [
    ...messagesOf(['fine']),
    { ...messagesOf([secret])[0], id: 'm2', contentType: 'v8' },
    { ...messagesOf(['%secret%'])[0], id: 'm3', contentType: 'bytes' },
    { ...messagesOf(['secret'])[0], id: 'm4', contentType: 'xml' },
    { ...messagesOf([{ secret }])[0], id: 'm5', contentType: 'text' },
  ];
  const { status, verdict } = await deliver(program, messages);
  assert.equal(status, 200);
  const retryMessages = ['m2', 'm3', 'm4', 'm5'].map((msgId) => ({ msgId }));
  assert.deepEqual(verdict, { ...NOTHING_SAID, explicitAcks: ['m1'], retryMessages });
  await until('four lines', () => (program.lines('a body cannot be read: the message is retried').length === 4 ? true : undefined));
  const lines = program.lines('a body cannot be read: the message is retried');
  assert.deepEqual(lines.map((line) => line.messages), [['m2'], ['m3'], ['m4'], ['m5']]);
  assert.match(lines[2].error, /content type "xml" is not known/);
  // Without a message that can be read there is nothing to call the handler with.
  const alone = await deliver(program, messages.slice(1));
  assert.deepEqual([alone.status, alone.verdict], [200, { ...NOTHING_SAID, retryMessages }]);
  await deliver(program, messages.slice(0, 1));
  await program.stop();
  assert.equal(program.out, '1\n1\n');
  assert.doesNotMatch(program.err, /secret|c2VjcmV0/);
});

test('an error of the handler is logged with queue and ids, and without bodies', async (t) => {
  const program = await startWorker(t, `export default { async queue(batch) { throw new RangeError('out of stock'); } };`);
  const { status } = await deliver(program, messagesOf(['top secret']));
  assert.equal(status, 500);
  await program.stop();
  const [line] = program.lines('the handler failed');
  assert.deepEqual([line.level, line.queue, line.messages], ['error', 'orders', ['m1']]);
  assert.match(line.error, /^RangeError: out of stock\n +at /);
  assert.doesNotMatch(program.err, /top secret/);
});

test('several queues and calls at once', async (t) => {
  const program = await startWorker(
    t,
    `let waiting = [];
    export default { async queue(batch) {
      await new Promise((resolve) => { waiting.push(resolve); if (waiting.length === 3) waiting.forEach((go) => go()); });
      if (batch.queue === 'bad') throw new Error('bad');
      if (batch.queue === 'later') batch.retryAll({ delaySeconds: 7 });
    } };`,
  );
  const deliveries = ['good', 'bad', 'later'].map((queue) => deliver(program, messagesOf([1]), { queue }));
  const [good, bad, later] = await Promise.all(deliveries);
  assert.deepEqual([good.status, bad.status, later.status], [200, 500, 200]);
  assert.deepEqual(later.verdict.retryBatch, { retry: true, delaySeconds: 7 });
});

test('what is no batch', async (t) => {
  const program = await startWorker(t, `export default { queue() {} };`, { args: ['--path', '/batches'] });
  const json = { 'content-type': 'application/json' };
  const good = JSON.stringify({ queue: 'orders', messages: messagesOf([1]) });
  const send = (body, path = '/batches', options) => post(program.port, path, json, body, options);
  assert.equal((await send(good)).status, 200);
  assert.equal((await send(good, '/batches?x=1')).status, 200);
  for (const path of ['/', '//', '/other', '/batches/']) {
    const { status, text } = await send(good, path);
    assert.deepEqual([status, text], [404, 'batches are taken at /batches\n'], path);
  }
  const get = await send(undefined, '/batches', { method: 'GET' });
  assert.deepEqual([get.status, get.headers.allow], [405, 'POST']);
  const [message] = messagesOf([1]);
  const without = (field) => ({ ...message, [field]: undefined });
  const wrong = (request) => JSON.stringify({ queue: 'orders', messages: [message], ...request });
  const refusals = [
    ['{', /no JSON/],
    ['', /no JSON/],
    ['[]', /the body is no object/],
    [wrong({ queue: 5 }), /^queue is no string/],
    [wrong({ messages: [] }), /^messages is no list with a message/],
    [wrong({ messages: {} }), /^messages is no list/],
    [wrong({ messages: [message, 5] }), /^messages\[1\] is no object/],
    [wrong({ messages: [without('id')] }), /^messages\[0\].id is no string/],
    [wrong({ messages: [without('timestampMs')] }), /^messages\[0\].timestampMs is no number/],
    [wrong({ messages: [without('attempts')] }), /^messages\[0\].attempts is no number/],
    [wrong({ messages: [without('body')] }), /^messages\[0\].body is missing/],
    [wrong({ messages: [{ ...message, attributes: 5 }] }), /^messages\[0\].attributes is no object/],
  ];
  for (const [body, expected] of refusals) {
    const { status, text } = await send(body);
    assert.equal(status, 400, body);
    assert.match(text, expected);
  }
});

test('a batch that is too large is refused, announced or not', async (t) => {
  const program = await startWorker(t, `export default { queue() {} };`);
  const chunk = Buffer.alloc(1024 * 1024, 32);
  /** Writes `count` chunks, and only then looks at the answer, as a client may that does one after the other. */
  const send = (count, headers) =>
    new Promise((resolve, reject) => {
      const request = http.request({ host: '127.0.0.1', port: program.port, path: '/', method: 'POST', headers }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode));
      });
      request.on('error', reject);
      const write = (left) => (left === 0 ? request.end() : request.write(chunk, () => setImmediate(write, left - 1)));
      write(count);
    });
  assert.equal(await send(17, { 'content-length': 17 * chunk.length }), 413);
  assert.equal(await send(30), 413);
  // The largest batch that there can be is read: 2 MiB of bodies, each character escaped.
  const largest = messagesOf(['\u0001'.repeat(1024 * 1024), '\u0001'.repeat(1024 * 1024)]);
  assert.equal((await deliver(program, largest)).status, 200);
  await assert.rejects(send(60), /EPIPE|ECONNRESET|socket hang up/, 'what has no end is not heard out');
  await program.stop();
  const refusals = program.lines('a call was refused');
  assert.equal(refusals.length, 2);
  assert.ok(refusals.every((line) => /16777216 bytes is not read: lower the Consumer's maxBatchBytes/.test(line.reason)));
});

test('more calls than there can be are refused', async (t) => {
  const program = await startWorker(
    t,
    `let open = [];
    export default { async queue(batch) {
      if (batch.queue === 'go') return open.splice(0).forEach((go) => go());
      await new Promise((resolve) => { open.push(resolve); console.log(open.length); });
    } };`,
  );
  const agent = new http.Agent({ maxSockets: 300 });
  const body = JSON.stringify({ queue: 'orders', messages: messagesOf([1]) });
  const calls = Array.from({ length: 250 }, () => post(program.port, '/', {}, body, { agent }));
  await until('250 open calls', () => (program.out.includes('250\n') ? true : undefined));
  const { status, headers } = await post(program.port, '/', {}, body, { agent });
  assert.deepEqual([status, headers['retry-after']], [503, '1']);
  assert.equal((await post(program.port, '/healthz', {}, undefined, { method: 'GET', agent })).status, 200);
  program.child.kill('SIGTERM');
  await program.line('ending');
  program.child.kill('SIGKILL');
  await Promise.allSettled(calls);
});

test('bytes that are held are bounded', async (t) => {
  const program = await startWorker(t, `export default { async queue(batch) { console.log(batch.queue); await new Promise(() => {}); } };`);
  const agent = new http.Agent({ maxSockets: 20 });
  const body = JSON.stringify({ queue: 'orders', messages: messagesOf(['x'.repeat(15 * 1024 * 1024)]) });
  const calls = Array.from({ length: 8 }, () => post(program.port, '/', {}, body, { agent }));
  await until('8 open calls', () => (program.out.split('\n').length > 8 ? true : undefined));
  const { status, text } = await post(program.port, '/', {}, body, { agent });
  assert.deepEqual([status, text], [503, 'too many batches are open\n']);
  program.child.kill('SIGKILL');
  await Promise.allSettled(calls);
});

test('a Worker without queue() refuses batches as not begun, and is healthy', async (t) => {
  const program = await startWorker(t, `export default { fetch: () => new Response('hi') };`);
  const { status, text } = await deliver(program, messagesOf([1]));
  assert.deepEqual([status, text], [501, 'the Worker exports no queue() handler\n']);
  const health = await post(program.port, '/healthz', {}, undefined, { method: 'GET' });
  assert.deepEqual([health.status, health.text], [200, 'ok\n']);
});

test('a call that the sidecar cut is told', async (t) => {
  const program = await startWorker(
    t,
    `let go;
    export default { async queue(batch) {
      if (batch.queue === 'go') return go();
      console.log('began');
      await new Promise((resolve) => { go = resolve; });
    } };`,
  );
  const request = http.request({ host: '127.0.0.1', port: program.port, method: 'POST' });
  request.on('error', () => {});
  request.end(JSON.stringify({ queue: 'slow', messages: messagesOf([1]) }));
  await until('the call', () => (program.out === 'began\n' ? true : undefined));
  request.destroy();
  const line = await program.line("the sidecar cut the call: the endpoint's timeout is over, or it ended");
  assert.deepEqual(line.messages, ['m1']);
  assert.equal((await deliver(program, messagesOf([1]), { queue: 'go' })).status, 200);
});

test('batches are taken from the pod itself alone', () => {
  const local = ['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1'];
  const others = ['10.0.0.7', '::ffff:10.0.0.7', 'fe80::1', '1270::1', '', undefined];
  for (const address of local) assert.equal(isLocal(address), true, address);
  for (const address of others) assert.equal(isLocal(address), false, address);
});

test('others than the pod itself are refused', async (t) => {
  let calls = 0;
  const worker = { handlesQueue: true, queue: async () => (calls += 1) };
  const consumer = new Consumer(worker, new Background(), { port: 0, host: '127.0.0.1', path: '/', waitForWaitUntil: true });
  const port = await consumer.listen();
  t.after(() => consumer.end());
  assert.equal((await deliver({ port }, messagesOf([1]))).status, 200);
  // Tests stay on this machine, so the address is made to look like another one's.
  const real = net.Socket.prototype._getpeername;
  t.after(() => (net.Socket.prototype._getpeername = real));
  net.Socket.prototype._getpeername = () => ({ address: '10.0.0.7' });
  const { status, text } = await deliver({ port }, messagesOf([1]));
  assert.deepEqual([status, text], [403, 'batches are taken from the pod itself alone\n']);
  assert.equal((await post(port, '/healthz', {}, undefined, { method: 'GET' })).status, 200, 'the kubelet comes from elsewhere');
  assert.equal(calls, 1);
});

test('with the runtime\'s flag an answer does not wait for waitUntil()', async (t) => {
  const flag = JSON.stringify({ main: 'worker.js', compatibility_flags: ['queue_consumer_no_wait_for_wait_until'] });
  const worker = `let go;
    export default { queue(batch, env, ctx) {
      if (batch.queue === 'go') return go();
      ctx.waitUntil(new Promise((resolve, reject) => { go = () => reject(new Error('in the background')); }));
      batch.messages[0].ack();
    } };`;
  const program = await startWorker(t, worker, { files: { 'wrangler.json': flag } });
  const { status, verdict } = await deliver(program, messagesOf([1, 2]));
  assert.deepEqual([status, verdict], [200, { ...NOTHING_SAID, explicitAcks: ['m1'] }]);
  assert.equal((await deliver(program, messagesOf([1]), { queue: 'go' })).status, 200);
  await program.line('a promise given to waitUntil() was rejected');
});
