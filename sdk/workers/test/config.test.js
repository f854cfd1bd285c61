// The command line, the environment, the Worker's own configuration, its module and its bindings.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { deliver, folderOf, messagesOf, post, runToEnd, startGateway, startWorker, until } from './support.js';

const NOTHING = 'export default { queue() {} };';
/** Prints what `env` holds. */
const SHOW = `export default { queue(batch, env) {
  console.log(JSON.stringify(Object.fromEntries(Object.entries(env).map(([name, value]) => [name, value?.send ? 'a queue' : value]))));
} };`;

async function shown(program) {
  await deliver(program, messagesOf([1]));
  return JSON.parse(await until('a line', () => (program.out.endsWith('\n') ? program.out : undefined)));
}

/** Where a send through each of `bindings` ends up. */
const SENDS = `export default { async queue(batch, env) {
  for (const [name, value] of Object.entries(env)) await value.send(name);
  await Object.values(env)[0].sendBatch([{ body: 1 }, { body: 2, delaySeconds: 0 }]);
} };`;

test('usage', async (t) => {
  const help = await runToEnd(t, ['--help']);
  assert.deepEqual([help.exit.code, help.err], [0, '']);
  assert.match(help.out, /^Usage: capstan-workers \[MODULE\] \[OPTIONS\]\n/);
});

test('what is wrong with the command line or the environment is said, with exit code 64', async (t) => {
  const cwd = folderOf(t, { 'worker.js': NOTHING });
  const cases = [
    [[], {}, 'no MODULE, and no configuration with "main"'],
    [['a.js', 'b.js'], {}, 'one MODULE is run, not a.js and b.js'],
    [['missing.js'], {}, /^MODULE: .*missing.js is not there/],
    [['worker.js', '--wrong'], {}, "Unknown option '--wrong'"],
    [['worker.js', '--port', 'x'], {}, '--port x: 0 to 65535 was expected'],
    [['worker.js', '--port', '65536'], {}, '--port 65536'],
    [['worker.js'], { PORT: '-1' }, '--port -1'],
    [['worker.js', '--port', '5', '--fetch-port', '5'], {}, '--port and --fetch-port are both 5'],
    [['worker.js', '--path', 'x'], {}, '--path x: a path that begins with /'],
    [['worker.js', '--gateway', 'localhost:9797'], {}, '--gateway localhost:9797: a URL such as'],
    [['worker.js'], { CAPSTAN_GATEWAY_URL: 'http://x/?a=1' }, '--gateway http://x/?a=1'],
    [['worker.js', '--end-seconds', '43201'], {}, '--end-seconds 43201: 0 to 43200'],
    [['worker.js', '--queue', 'ORDERS'], {}, '--queue ORDERS: BINDING=QUEUE was expected'],
    [['worker.js', '--queue', 'ORDERS=Orders'], {}, '--queue ORDERS=Orders: "Orders" is no name of a Queue'],
    [['worker.js', '--queue', `Q=${'a'.repeat(64)}`], {}, 'is no name of a Queue: 1 to 63'],
    [['worker.js', '--var', '=x'], {}, '--var =x: NAME=VALUE or NAME'],
    [['worker.js', '--var', 'MISSING'], {}, '--var MISSING: the environment has no MISSING'],
    [['worker.js', '--env', 'staging'], {}, '--env staging needs a configuration'],
    [['worker.js', '--config', 'missing.json'], {}, /missing.json: ENOENT/],
    [['worker.js', '--bindings', 'missing.js'], {}, /^--bindings: .*missing.js is not there/],
    [['worker.js', '--var', 'Q=1', '--queue', 'Q=q'], {}, 'the binding Q of "queues.producers" or --queue is there already'],
    [['worker.js'], { CAPSTAN_LOG: 'loud' }, 'CAPSTAN_LOG=loud: error, warn, info or debug'],
    [['worker.js', '--host', '203.0.113.1', '--port', '0'], {}, /^port 0 cannot be listened on: .*EADDRNOTAVAIL/],
  ];
  for (const [args, env, expected] of cases) {
    const { exit, err, out } = await runToEnd(t, args, { cwd, env });
    assert.deepEqual([exit.code, out], [64, ''], `${args} ${JSON.stringify(env)} ${err}`);
    const message = err.replace(/^capstan-workers: /, '');
    assert.ok(typeof expected === 'string' ? message.includes(expected) : expected.test(message), err);
  }
});

test('what is wrong with a configuration is said, with file and field', async (t) => {
  const cases = [
    ['wrangler.json', '{', /wrangler.json: .*JSON/],
    ['wrangler.json', '[]', /wrangler.json: it is no object/],
    ['wrangler.jsonc', '{"main": 5}', /main is no text/],
    ['wrangler.jsonc', '{"vars": []}', /vars is no object/],
    ['wrangler.jsonc', '{"queues": {"producers": {}}}', /queues.producers is no list/],
    ['wrangler.jsonc', '{"queues": {"producers": [{"binding": "Q"}]}}', /queues.producers\[0\] needs a binding and a queue/],
    ['wrangler.jsonc', '{"queues": {"producers": [{"binding": "Q", "queue": "q", "delivery_delay": -1}]}}', /producers\[0\].delivery_delay is not 0 to 86400/],
    ['wrangler.jsonc', '{"queues": {"producers": [{"binding": "Q", "queue": "A"}]}}', /queues.producers of Q: "A" is no name/],
    ['wrangler.jsonc', '{"queues": {"producers": [{"binding": "Q", "queue": "a"}, {"binding": "Q", "queue": "b"}]}}', /the binding Q is there twice/],
    ['wrangler.jsonc', '{"compatibility_flags": "x"}', /compatibility_flags is no list of texts/],
    ['wrangler.toml', 'main = worker.js', /wrangler.toml: line 1: .*put text in quotes/],
    ['wrangler.jsonc', '{"kv_namespaces": [{"binding": "KV", "id": "1"}], "d1_databases": [{"binding": "DB"}]}', /nothing supplies: KV \(kv_namespaces\), DB \(d1_databases\); name a module that does with --bindings/],
    ['wrangler.jsonc', '{"durable_objects": {"bindings": [{"name": "ROOM", "class_name": "Room"}]}}', /ROOM \(durable_objects\)/],
    ['wrangler.jsonc', '{"ai": {"binding": "AI"}, "send_email": [{"name": "MAIL"}]}', /AI \(ai\), MAIL \(send_email\)/],
  ];
  for (const [name, text, expected] of cases) {
    const cwd = folderOf(t, { [name]: text, 'worker.js': NOTHING });
    const { exit, err } = await runToEnd(t, ['worker.js', '--port', '0', '--host', '127.0.0.1'], { cwd });
    assert.equal(exit.code, 64, text);
    assert.match(err, expected);
  }
  const cwd = folderOf(t, { 'wrangler.json': '{"env": {"staging": {}}}', 'worker.js': NOTHING });
  const { err } = await runToEnd(t, ['worker.js', '--env', 'live'], { cwd });
  assert.match(err, /env.live is not there; --env takes one of: staging/);
  const large = folderOf(t, { 'wrangler.json': ' '.repeat(1024 * 1024 + 1) });
  assert.match((await runToEnd(t, [], { cwd: large })).err, /1048577 bytes are more than 1048576/);
});

const TOML = `
name = "shop"
main = "src/index.js"
compatibility_date = "2026-11-01"

[vars]
COLOUR = "red"
LIMITS = { most = 3 }

[[queues.producers]]
binding = "ORDERS"
queue = "orders"
delivery_delay = 60

[[queues.producers]]
binding = "MAIL"
queue = "mail"

[[queues.consumers]]
queue = "orders"
max_batch_size = 10

[env.staging]
vars = { COLOUR = "blue" }
[[env.staging.queues.producers]]
binding = "ORDERS"
queue = "orders-staging"
[[env.staging.kv_namespaces]]
binding = "KV"
id = "1"
`;

test('the configuration names module, variables and queues, in each of its formats', async (t) => {
  const json = `{
    // What wrangler writes for a new project.
    "name": "shop", "main": "src/index.js", "compatibility_date": "2026-11-01",
    "vars": { "COLOUR": "red", "LIMITS": { "most": 3 } },
    "queues": {
      "producers": [{ "binding": "ORDERS", "queue": "orders", "delivery_delay": 60 }, { "binding": "MAIL", "queue": "mail" }],
      "consumers": [{ "queue": "orders", "max_batch_size": 10 }],
    },
  }`;
  for (const [name, text] of [['wrangler.toml', TOML], ['wrangler.jsonc', json], ['wrangler.json', json]]) {
    const program = await startWorker(t, undefined, { files: { [name]: text, 'src/index.js': SHOW } });
    const queues = { ORDERS: 'orders', MAIL: 'mail' };
    assert.deepEqual((await program.line('listening')).queues, queues, name);
    const line = await program.line('how these queues are consumed is said by Consumers, not by the configuration');
    assert.deepEqual(line.queues, ['orders']);
    assert.deepEqual(await shown(program), { COLOUR: 'red', LIMITS: { most: 3 }, ORDERS: 'a queue', MAIL: 'a queue' });
  }
});

test('an environment has its own variables and bindings, and the program of all', async (t) => {
  const files = { 'wrangler.toml': TOML, 'src/index.js': SHOW, 'kv.js': `export default { KV: 'a store' };` };
  const program = await startWorker(t, undefined, { files, args: ['--env', 'staging', '--bindings', 'kv.js'] });
  assert.deepEqual((await program.line('listening')).queues, { ORDERS: 'orders-staging' });
  assert.deepEqual(await shown(program), { COLOUR: 'blue', ORDERS: 'a queue', KV: 'a store' });
  // What it does not name itself is not there: neither to be used nor to be missed.
  const bare = JSON.stringify({
    main: 'index.js',
    vars: { COLOUR: 'red' },
    queues: { producers: [{ binding: 'Q', queue: 'q' }] },
    d1_databases: [{ binding: 'DB' }],
    env: { bare: {} },
  });
  const other = await startWorker(t, undefined, { files: { 'wrangler.json': bare, 'index.js': SHOW }, args: ['--env', 'bare'] });
  assert.deepEqual(await shown(other), {});
});

test('the command line wins over the configuration', async (t) => {
  const gateway = await startGateway(t);
  const files = { 'wrangler.toml': TOML.replace(/^vars.*$|^COLOUR.*$|^LIMITS.*$/gm, ''), 'other.js': SENDS };
  const args = ['other.js', '--queue', 'ORDERS=other-orders', '--queue', 'MORE=more'];
  const program = await startWorker(t, undefined, { files, args, env: { CAPSTAN_GATEWAY_URL: gateway.url } });
  assert.equal((await deliver(program, messagesOf([1]))).status, 200);
  const sent = gateway.requests.map(({ path, body }) => [path, body.delay_seconds, body.messages?.map((one) => one.delay_seconds)]);
  assert.deepEqual(sent, [
    // The delay of the binding stays, and a message's own wins over it.
    ['/queues/other-orders/messages', 60, undefined],
    ['/queues/mail/messages', undefined, undefined],
    ['/queues/more/messages', undefined, undefined],
    ['/queues/other-orders/messages/batch', 60, [undefined, 0]],
  ]);
});

test('variables come from the command line or the environment', async (t) => {
  const args = ['--var', 'A=x=y', '--var', 'B=', '--var', 'SECRET', '--var', 'COLOUR=green'];
  const files = { 'wrangler.json': '{"vars": {"COLOUR": "red"}}' };
  const program = await startWorker(t, SHOW, { args, files, env: { SECRET: 's', OTHER: 'o' } });
  assert.deepEqual(await shown(program), { COLOUR: 'green', A: 'x=y', B: '', SECRET: 's' });
});

test('before 2024-03-18 a body without content type is sent as v8, unless a flag says otherwise', async (t) => {
  const cases = [
    ['{"compatibility_date": "2024-03-17"}', 'v8'],
    ['{"compatibility_date": "2024-03-18"}', 'json'],
    ['{"compatibility_date": "2023-01-01", "compatibility_flags": ["queues_json_messages"]}', 'json'],
    ['{"compatibility_date": "2026-01-01", "compatibility_flags": ["no_queues_json_messages"]}', 'v8'],
    ['{}', 'json'],
  ];
  for (const [text, expected] of cases) {
    const gateway = await startGateway(t);
    const args = ['--queue', 'Q=q', '--gateway', gateway.url];
    const program = await startWorker(t, SENDS, { files: { 'wrangler.json': text }, args });
    assert.equal((await deliver(program, messagesOf([1]))).status, 200);
    const types = gateway.requests.flatMap(({ body }) => body.messages ?? [body]).map((one) => one.content_type);
    assert.deepEqual(types, Array(3).fill(expected), text);
  }
});

test('other bindings come from a module: a database, a store, plain values', async (t) => {
  const bindings = `
    // The form of a database binding over an array.
    const rows = [];
    const DB = { prepare: (sql) => ({ bind: (...values) => ({ run: async () => { rows.push([sql, ...values]); return { success: true }; } }) }) };
    export default async function (env) {
      const stored = new Map([['colour', env.COLOUR]]);
      return { DB, KV: { get: async (key) => stored.get(key) ?? null }, LIMIT: 5, queued: typeof env.Q.send };
    }
    export async function close() { console.log(JSON.stringify(rows)); }`;
  const worker = `export default { async queue(batch, env) {
    for (const { id, body } of batch.messages) await env.DB.prepare('INSERT INTO orders VALUES (?, ?)').bind(id, body.item).run();
    console.log(await env.KV.get('colour'), env.LIMIT, env.queued, Object.keys(env).join());
  } };`;
  const files = { 'bindings.js': bindings, 'wrangler.json': '{"vars": {"COLOUR": "red"}, "d1_databases": [{"binding": "DB"}]}' };
  const program = await startWorker(t, worker, { files, args: ['--queue', 'Q=q', '--bindings', 'bindings.js'] });
  assert.equal((await deliver(program, messagesOf([{ item: 'lamp' }]))).status, 200);
  assert.deepEqual(await program.end(), { code: 0, signal: null });
  assert.deepEqual(program.out.split('\n'), [
    'red 5 function COLOUR,Q,DB,KV,LIMIT,queued',
    '[["INSERT INTO orders VALUES (?, ?)","m1","lamp"]]',
    '',
  ]);
});

test('a module of bindings that supplies none, or a name twice, or fails', async (t) => {
  const cases = [
    ['export default 5;', /supplies no bindings: export default an object/],
    ['export const DB = {};', /supplies no bindings/],
    ['export default () => undefined;', /supplies no bindings/],
    ['export default { Q: 1 };', /the binding Q of .*bindings.js is there already: rename one/],
    ["export default () => { throw new Error('no database'); };", /bindings.js failed: Error: no database/],
    ["throw new Error('at once');", /bindings.js cannot be loaded: Error: at once/],
    ['export default {', /bindings.js cannot be loaded: SyntaxError/],
  ];
  for (const [text, expected] of cases) {
    const cwd = folderOf(t, { 'bindings.js': text, 'worker.js': NOTHING, 'package.json': '{"type": "module"}' });
    const { exit, err } = await runToEnd(t, ['worker.js', '--queue', 'Q=q', '--bindings', 'bindings.js', '--port', '0'], { cwd });
    assert.equal(exit.code, 64, text);
    assert.match(err, expected);
  }
});

test('a Worker that cannot be run', async (t) => {
  const cases = [
    ['worker.js', 'export default {};', /exports no handler: export default/],
    ['worker.js', 'export const queue = () => {};', /exports no handler/],
    ['worker.js', "addEventListener('fetch', () => {});", /cannot be loaded: ReferenceError|exports no handler/],
    ['worker.js', 'export default {', /worker.js cannot be loaded: SyntaxError/],
    ['worker.js', "import './missing.js'; export default {};", /cannot be loaded: .*missing.js/],
    ['worker.js', "import { connect } from 'cloudflare:sockets'; export default {};", /cloudflare:sockets is not available in Capstan's runner/],
  ];
  if (!process.features.typescript) cases.push(['worker.ts', NOTHING, /worker.ts is TypeScript, which Node \d+/]);
  for (const [name, text, expected] of cases) {
    const { exit, err } = await runToEnd(t, [name, '--port', '0', '--host', '127.0.0.1'], { cwd: folderOf(t, { [name]: text }) });
    assert.equal(exit.code, 64, text);
    assert.match(err, expected);
  }
});

test('a Worker may be a class, and import cloudflare:workers', async (t) => {
  const worker = `import { env, WorkerEntrypoint, waitUntil, DurableObject } from 'cloudflare:workers';
    export class Room extends DurableObject {}
    const atStart = env.COLOUR;
    export default class extends WorkerEntrypoint {
      made = Math.random();
      async fetch(request) { return Response.json({ atStart, env: this.env.COLOUR, same: this.env === env, method: request.method, args: arguments.length }); }
      async queue(batch) {
        const { ctx } = this;
        console.log(this.made);
        waitUntil(Promise.resolve().then(() => batch.messages[0].retry()));
        ctx.waitUntil(batch.queue === 'bad' ? Promise.reject(new Error('no')) : 1);
      }
      async scheduled() {}
    }`;
  const program = await startWorker(t, worker, { args: ['--var', 'COLOUR=red'] });
  const { verdict } = await post(program.fetchPort, '/', {}, undefined, { method: 'GET' });
  assert.deepEqual(verdict, { atStart: 'red', env: 'red', same: true, method: 'GET', args: 1 });
  const good = await deliver(program, messagesOf([1]));
  assert.deepEqual([good.status, good.verdict.retryMessages], [200, [{ msgId: 'm1' }]]);
  assert.equal((await deliver(program, messagesOf([1]), { queue: 'bad' })).status, 500);
  const made = await until('two lines', () => (program.out.split('\n').length > 2 ? program.out.trim().split('\n') : undefined));
  assert.equal(new Set(made).size, 2, 'each call has an object of its own');
  assert.deepEqual((await program.line('the Worker has handlers that nothing calls here')).handlers, ['scheduled']);
});

test('modules are modules, whatever package.json says', async (t) => {
  for (const type of ['{}', '{"type": "commonjs"}', '{"type": "module"}', undefined]) {
    const files = {
      'worker.js': `/* As bundlers write it: */ import { one } from './one.js'; import { two } from './two.js'; import old from './old.cjs'; import dep from 'dep'; export default { async queue(batch, env) { console.log(one, two, old, dep, env.STORE); } };`,
      'one.js': `import { EOL } from 'node:os';\nexport const one = 'one' + EOL.length;`,
      'two.js': `const two = 2;\nexport { two };`,
      'old.cjs': `module.exports = 'old';`,
      'node_modules/dep/package.json': '{"main": "dep.js"}',
      'node_modules/dep/dep.js': "module.exports = `dep\nexport {}`.slice(0, 3);",
      'bindings.js': `import path from 'node:path';\nexport default { STORE: path.basename('/a/store') };`,
      ...(type === undefined ? {} : { 'package.json': type }),
    };
    const folder = folderOf(t, files);
    const program = await startWorker(t, join(folder, 'worker.js'), { cwd: folder, args: ['--bindings', 'bindings.js'] });
    assert.equal((await deliver(program, messagesOf([1]))).status, 200);
    await program.stop();
    assert.equal(program.out, 'one1 2 old dep store\n', type);
  }
  const worker = `import old from './old.js';\nexport default { queue() { console.log(old); } };`;
  const files = { 'old.js': `module.exports = 'old';`, 'package.json': '{"type": "commonjs"}' };
  const program = await startWorker(t, worker, { files });
  assert.equal((await deliver(program, messagesOf([1]))).status, 200);
  await program.stop();
  assert.equal(program.out, 'old\n', 'what is none stays what it is');
});

test('a log has the lines that were asked for', async (t) => {
  const cwd = folderOf(t, { 'worker.js': 'export default { queue() {}, scheduled() {} };' });
  const args = ['worker.js', '--port', '0', '--host', '203.0.113.1'];
  for (const [level, lines] of [['error', 0], ['warn', 1], ['debug', 1]]) {
    const program = await runToEnd(t, args, { cwd, env: { CAPSTAN_LOG: level } });
    assert.equal(program.lines().length, lines, level);
    assert.match(program.err, /capstan-workers: port 0 cannot be listened on/);
  }
});
