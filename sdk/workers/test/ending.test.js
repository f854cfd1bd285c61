// Ends: by signal, with calls open, in time or not; and errors that nobody caught.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';

import { deliver, folderOf, messagesOf, NOTHING_SAID, post, start, startWorker, until } from './support.js';

/** queue() and fetch() wait for SIGUSR2; fetch() has a promise in the background, too. */
const SLOW = `let open = [];
process.on('SIGUSR2', () => open.splice(0).forEach((go) => go()));
const wait = (name) => new Promise((resolve) => { console.log(name); open.push(resolve); });
export default {
  async queue(batch) {
    if (batch.queue !== 'quick') await wait('queue began');
    batch.messages[0].ack();
  },
  async fetch(request, env, ctx) {
    ctx.waitUntil(wait('promise began').then(() => console.log('promise ended')));
    if (new URL(request.url).pathname === '/slow') await wait('fetch began');
    return new Response('done');
  },
};`;

const began = (program, ...names) => until(names.join(), () => (names.every((name) => program.out.includes(name)) ? true : undefined));

test('open calls, requests and promises are finished; what comes meanwhile is given back', async (t) => {
  const files = { 'bindings.js': `export default { DB: {} }; export function close() { console.log('closed'); }` };
  const program = await startWorker(t, SLOW, { files, args: ['--bindings', 'bindings.js'] });
  const call = deliver(program, messagesOf([1, 2]));
  const request = post(program.fetchPort, '/slow', {}, undefined, { method: 'GET' });
  await began(program, 'queue began', 'fetch began', 'promise began');
  program.child.kill('SIGTERM');
  const line = await program.line('ending');
  assert.deepEqual([line.why, line.calls, line.requests], ['SIGTERM', 1, 1]);
  const refused = await deliver(program, messagesOf([3]));
  assert.deepEqual([refused.status, refused.text, refused.headers['retry-after']], [503, 'the Worker is ending\n', '1']);
  assert.equal(refused.headers.connection, 'close');
  const health = await post(program.port, '/healthz', {}, undefined, { method: 'GET' });
  assert.deepEqual([health.status, health.text], [503, 'ending\n']);
  await assert.rejects(post(program.fetchPort, '/', {}, undefined, { method: 'GET' }), /ECONNREFUSED/);
  program.child.kill('SIGUSR2');
  const { status, verdict, headers } = await call;
  assert.deepEqual([status, verdict], [200, { ...NOTHING_SAID, explicitAcks: ['m1'] }]);
  assert.equal(headers.connection, 'close');
  assert.equal((await request).text, 'done');
  assert.deepEqual(await program.exited, { code: 0, signal: null });
  assert.match(program.out, /promise ended\nclosed\n$/);
});

test('a connection that the sidecar may use again is answered, and is closed only when it does not any more', async (t) => {
  const program = await startWorker(t, SLOW);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const body = JSON.stringify({ queue: 'quick', messages: messagesOf([1]) });
  assert.equal((await post(program.port, '/', {}, body, { agent })).status, 200);
  const slow = deliver(program, messagesOf([1]));
  await began(program, 'queue began');
  program.child.kill('SIGTERM');
  await program.line('ending');
  const refused = await post(program.port, '/', {}, body, { agent });
  assert.equal(refused.status, 503);
  // A large batch is heard out: a connection that breaks while it is written would look like a call that failed.
  const large = await deliver(program, messagesOf(['x'.repeat(8 * 1024 * 1024)]));
  assert.deepEqual([large.status, large.headers.connection], [503, 'close']);
  program.child.kill('SIGUSR2');
  assert.equal((await slow).status, 200);
  // The sidecar uses a connection again within a second after its last answer.
  const answered = performance.now();
  assert.deepEqual(await program.exited, { code: 0, signal: null });
  assert.ok(performance.now() - answered > 1000);
});

test('an answer that is being read is not cut', async (t) => {
  const program = await startWorker(t, `export default { queue(batch) { for (const message of batch.messages) message.ack(); } };`);
  // Larger than what the system keeps of it.
  const messages = Array.from({ length: 15 }, (_, n) => ({ ...messagesOf([1])[0], id: `${n}-${'x'.repeat(1024 * 1024)}` }));
  const response = await new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port: program.port, method: 'POST', agent: false }, resolve);
    request.on('error', reject);
    request.end(JSON.stringify({ queue: 'orders', messages }));
  });
  program.child.kill('SIGTERM');
  await program.line('ending');
  let text = '';
  for await (const chunk of response) text += chunk;
  assert.deepEqual(JSON.parse(text).explicitAcks, messages.map(({ id }) => id));
  assert.deepEqual(await program.exited, { code: 0, signal: null });
});

test('an idle process ends', async (t) => {
  const program = await startWorker(t, SLOW);
  assert.deepEqual(await program.end('SIGINT'), { code: 0, signal: null });
  assert.equal(program.lines('cut: not all ended in time').length, 0);
});

test('a promise in the background is waited for when nothing else is open', async (t) => {
  const program = await startWorker(t, SLOW);
  assert.equal((await post(program.fetchPort, '/', {}, undefined, { method: 'GET' })).text, 'done');
  await began(program, 'promise began');
  program.child.kill('SIGTERM');
  await program.line('ending');
  program.child.kill('SIGUSR2');
  assert.deepEqual(await program.exited, { code: 0, signal: null });
  assert.match(program.out, /promise ended/);
});

test('what does not end in time is cut, and told', async (t) => {
  const program = await startWorker(t, SLOW, { env: { CAPSTAN_END_SECONDS: '1' } });
  const call = deliver(program, messagesOf([1]));
  await began(program, 'queue began');
  program.child.kill('SIGTERM');
  await assert.rejects(call, /socket hang up|ECONNRESET/);
  assert.deepEqual(await program.exited, { code: 1, signal: null });
  const [line] = program.lines('cut: not all ended in time');
  assert.deepEqual([line.calls, line.requests], [1, 0]);
});

test('a second signal ends it there', async (t) => {
  const program = await startWorker(t, SLOW);
  const call = deliver(program, messagesOf([1]));
  await began(program, 'queue began');
  program.child.kill('SIGTERM');
  await program.line('ending');
  program.child.kill('SIGTERM');
  await assert.rejects(call);
  assert.deepEqual(await program.exited, { code: 143, signal: null });
});

test('an error in a callback fails its own call, and no other', async (t) => {
  const program = await startWorker(
    t,
    `export default { async queue(batch) {
      if (batch.queue === 'bad') setTimeout(() => { throw new Error('in a timer'); }, 1);
      await new Promise((resolve) => setTimeout(resolve, 50));
    } };`,
  );
  const [good, bad] = await Promise.all(['good', 'bad'].map((queue) => deliver(program, messagesOf([1]), { queue })));
  assert.deepEqual([good.status, bad.status], [200, 500]);
  assert.equal((await program.line('a callback of the handler failed')).queue, 'bad');
  assert.equal((await deliver(program, messagesOf([1]), { queue: 'good' })).status, 200);
});

test("an error that is no call's ends the process, after the open calls", async (t) => {
  const program = await startWorker(t, `process.on('SIGHUP', () => { throw new Error('a broken pool'); });\n${SLOW}`);
  const call = deliver(program, messagesOf([1]));
  await began(program, 'queue began');
  program.child.kill('SIGHUP');
  assert.equal((await program.line('ending')).why, 'an error was not caught');
  program.child.kill('SIGUSR2');
  assert.equal((await call).status, 200);
  assert.deepEqual(await program.exited, { code: 1, signal: null });
  assert.match((await program.line('an error was not caught')).error, /a broken pool/);
});

test('it serves on, and ends, when nobody reads what it writes', async (t) => {
  const program = await startWorker(t, `export default { async queue() { console.log('x'); throw new Error('told to nobody'); } };`);
  program.child.stdout.destroy();
  program.child.stderr.destroy();
  for (let call = 0; call < 3; call++) assert.equal((await deliver(program, messagesOf([1]))).status, 500);
  assert.deepEqual(await program.end(), { code: 0, signal: null });
});

test('a signal while the module loads ends it', async (t) => {
  const program = startLoading(t);
  await until('the module', () => (program.out === 'loading\n' ? true : undefined));
  assert.deepEqual(await program.end(), { code: 0, signal: null });
});

function startLoading(t) {
  return start(t, ['worker.js', '--port', '0', '--host', '127.0.0.1'], {
    cwd: folderOf(t, { 'worker.js': `console.log('loading'); setInterval(() => {}, 1000); await new Promise(() => {});` }),
  });
}
