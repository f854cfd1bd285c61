// Asks the Workers runtime what it answers to rules.js and what it sends for sends.js, and writes recorded.json.
//
// npm install --no-save workerd@1.20261117.1 && npm run record

import { spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { rules } from './rules.js';
import { sends } from './sends.js';

const require = createRequire(import.meta.url);
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { version } = require('workerd/package.json');
const date = version.replace(/^1\.(\d{4})(\d\d)(\d\d)\..*$/, '$1-$2-$3');

// Hands a batch to the Worker SUBJECT, as the runtime's queue service does.
const DISPATCH = `export default { async fetch(request, env) {
  const messages = ['m1', 'm2', 'm3'].map((id) => ({ id, timestamp: new Date(1795473420076), body: { id }, attempts: 1 }));
  return Response.json(await env.SUBJECT.queue(await request.text(), messages));
} };`;

const folder = mkdtempSync(join(tmpdir(), 'capstan-record-'));
const received = [];
const queue = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  received.push({ path: request.url, headers: request.headers, body: Buffer.concat(chunks) });
  const metrics = { backlogCount: 3, backlogBytes: 4, oldestMessageTimestamp: 1795473420076 };
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(request.url === '/metrics' ? metrics : { metadata: { metrics } }));
});
await new Promise((resolve) => queue.listen(0, '127.0.0.1', resolve));

writeFileSync(join(folder, 'dispatch.js'), DISPATCH);
for (const name of ['rules.js', 'sends.js']) copyFileSync(here(name), join(folder, name));
const worker = (name, file, more) =>
  `(name = "${name}", worker = (modules = [(name = "${name}", esModule = embed "${file}")], compatibilityDate = "${date}", ${more}))`;
writeFileSync(
  join(folder, 'config.capnp'),
  `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    ${worker('dispatch', 'dispatch.js', 'compatibilityFlags = ["service_binding_extra_handlers", "experimental"], bindings = [(name = "SUBJECT", service = "rules")]')},
    ${worker('rules', 'rules.js', '')},
    ${worker('sends', 'sends.js', 'bindings = [(name = "QUEUE", queue = "queue")]')},
    (name = "queue", external = (address = "127.0.0.1:${queue.address().port}", http = ()))
  ],
  sockets = [
    (name = "rules", address = "127.0.0.1:0", service = "dispatch", http = ()),
    (name = "sends", address = "127.0.0.1:0", service = "sends", http = ())
  ]
);`,
);

const program = spawn(require('workerd').default, ['serve', '--experimental', '--control-fd=3', join(folder, 'config.capnp')], {
  stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
});
const ports = await new Promise((resolve, reject) => {
  const found = {};
  program.on('exit', (code) => reject(new Error(`workerd ended with ${code}`)));
  let text = '';
  program.stdio[3].on('data', (chunk) => {
    text += chunk;
    for (const line of text.split('\n').filter((one) => one.endsWith('}'))) {
      const { event, socket, port } = JSON.parse(line);
      if (event === 'listen') found[socket] = port;
    }
    if (found.rules && found.sends) resolve(found);
  });
});

const recorded = { runtime: `workerd ${date}`, rules: {}, sends: {} };
for (const name of Object.keys(rules)) {
  const answer = await fetch(`http://127.0.0.1:${ports.rules}/`, { method: 'POST', body: name });
  recorded.rules[name] = await answer.json();
}
for (const name of Object.keys(sends)) {
  received.length = 0;
  const answer = await fetch(`http://127.0.0.1:${ports.sends}/?send=${encodeURIComponent(name)}`);
  recorded.sends[name] = { ...(await answer.json()), sent: received.map(sentOf) };
}
// A line for each, so that a later recording shows what changed.
const lines = (entries) => Object.entries(entries).map(([name, one]) => `  ${JSON.stringify(name)}: ${JSON.stringify(one)}`).join(',\n');
const text = `{\n "runtime": ${JSON.stringify(recorded.runtime)},\n "rules": {\n${lines(recorded.rules)}\n },\n "sends": {\n${lines(recorded.sends)}\n }\n}\n`;
writeFileSync(here('recorded.json'), text);
console.log(`${Object.keys(recorded.rules).length} rules and ${Object.keys(recorded.sends).length} sends of ${recorded.runtime}`);
program.removeAllListeners('exit');
program.kill();
queue.close();
rmSync(folder, { recursive: true });

/** A request to the queue service, in a form that a request to Capstan can be brought into as well. */
function sentOf({ path, headers, body }) {
  const delay = headers['x-msg-delay-secs'];
  const batchDelay = delay === undefined ? {} : { delaySeconds: Number(delay) };
  if (path === '/metrics') return { path };
  if (path === '/message') return { path, messages: [{ contentType: headers['x-msg-fmt'], body: body.toString('base64'), ...batchDelay }] };
  const messages = JSON.parse(body).messages.map(({ body, contentType, delaySecs }) => ({
    contentType,
    body,
    ...(delaySecs === undefined ? {} : { delaySeconds: delaySecs }),
  }));
  return { path, messages, ...batchDelay };
}
