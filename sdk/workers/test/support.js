// What the tests share: the command as a process, a sidecar that calls it, and a gateway that answers by script.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const COMMAND = fileURLToPath(new URL('../dist/main.js', import.meta.url));
export const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Longest time that a test waits for anything; never reached when all is well. */
const DEADLINE_MS = 60_000;

/** A folder with `files` by name, gone after the test. */
export function folderOf(test, files) {
  const folder = mkdtempSync(join(tmpdir(), 'capstan-workers-'));
  test.after(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

/** Resolves with what `probe` returns as soon as that is not undefined; a missing thing is named by `what`. */
export async function until(what, probe) {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    assert.ok(performance.now() < deadline, `never came: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Starts the command; what it writes is collected. */
export function start(test, args, { cwd, env = {}, command = [process.execPath, COMMAND] } = {}) {
  const { PATH } = process.env;
  const child = spawn(command[0], [...command.slice(1), ...args], { cwd, env: { PATH, ...env } });
  const program = { child, out: '', err: '', exit: undefined };
  child.stdout.on('data', (chunk) => (program.out += chunk));
  child.stderr.on('data', (chunk) => (program.err += chunk));
  program.exited = new Promise((resolve) => child.on('close', (code, signal) => resolve((program.exit = { code, signal }))));
  /** Log lines with `message`, as far as there are any. */
  program.lines = (message) => {
    const lines = program.err.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
    return lines.map((line) => JSON.parse(line)).filter((line) => message === undefined || line.message === message);
  };
  program.line = (message) => until(() => `the line "${message}" in\n${program.err}`, () => program.lines(message)[0]);
  program.end = async (signal = 'SIGTERM') => {
    child.kill(signal);
    return program.exited;
  };
  /** Ends it there and then; everything that it wrote has been read after that. */
  program.stop = () => program.end('SIGKILL');
  test.after(async () => {
    if (program.exit === undefined) await program.stop();
  });
  return program;
}

/** Runs the command to its end. */
export async function runToEnd(test, args, options) {
  const program = start(test, args, options);
  await program.exited;
  return program;
}

/**
 * Starts a Worker, from its source or, with a name that ends in .js, a file, and waits until it listens.
 * `args`, `env` and more `files` are optional.
 */
export async function startWorker(test, worker, { args = [], env, files = {}, cwd } = {}) {
  const isFile = worker?.endsWith('.js');
  const folder = cwd ?? folderOf(test, { ...files, ...(isFile || worker === undefined ? {} : { 'worker.js': worker }) });
  const module = worker === undefined ? [] : [isFile ? worker : 'worker.js'];
  const local = ['--port', '0', '--fetch-port', '0', '--host', '127.0.0.1'];
  const program = start(test, [...module, ...local, ...args], { cwd: folder, env });
  const listening = until(
    () => `listening; it wrote\n${program.err}`,
    () => (program.exit ? assert.fail(`it ended: ${JSON.stringify(program.exit)}\n${program.err}`) : program.lines('listening')[0]),
  );
  const { port, fetchPort } = await listening;
  return Object.assign(program, { port, fetchPort, folder });
}

/** Messages m1, m2, … with `bodies`, as the sidecar writes them. */
export function messagesOf(bodies, more = {}) {
  const common = { timestampMs: 1795473420076, attempts: 1, contentType: 'json', attributes: {} };
  return bodies.map((body, index) => ({ id: `m${index + 1}`, ...common, body, ...more }));
}

/** POSTs a batch as the sidecar does, and reads the answer. */
export async function deliver(program, messages, { queue = 'orders', path = '/', metadata } = {}) {
  const headers = { 'content-type': 'application/json', 'capstan-queue': queue };
  return post(program.port, path, headers, JSON.stringify({ queue, metadata, messages }));
}

/**
 * A request with an answer whose body is parsed when it is JSON. Each has a connection of its own, unless an agent is given,
 * that the server may keep: one that is used again could be closed meanwhile.
 */
export function post(port, path, headers, body, { method = 'POST', agent = false } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, method, headers: { connection: 'keep-alive', ...headers }, agent }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('error', reject);
      response.on('data', (chunk) => (text += chunk)).on('end', () => {
        const { statusCode: status, headers } = response;
        resolve({ status, headers, text, verdict: text.startsWith('{') ? JSON.parse(text) : undefined });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

/** The verdict of a call in which nothing was said. */
export const NOTHING_SAID = { outcome: 'ok', ackAll: false, retryBatch: { retry: false }, explicitAcks: [], retryMessages: [] };

/** A gateway that takes sends and remembers them; `answers` are given first, one to each request. */
export async function startGateway(test, answers = []) {
  const gateway = { requests: [], answers: [...answers], ports: [] };
  const server = http.createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const body = text === '' ? undefined : JSON.parse(text);
    const { method, url: path, headers } = request;
    gateway.ports.push(request.socket.remotePort);
    gateway.requests.push({ method, path, headers, body, text });
    const answer = gateway.answers.shift() ?? {};
    if (answer === 'cut') return request.socket.destroy();
    if (answer === 'half') return request.socket.end('HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{"success"');
    const { status = 200, headers: more = {}, result = { metadata: { metrics: metricsOf(3) }, ids: [] } } = answer;
    const envelope = { success: status === 200, errors: [], messages: [], result, ...answer.envelope };
    response.writeHead(status, { 'content-type': 'application/json', ...more });
    response.end(answer.text ?? JSON.stringify(envelope));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.after(() => {
    server.close();
    server.closeAllConnections();
  });
  gateway.url = `http://127.0.0.1:${server.address().port}`;
  return gateway;
}

export function metricsOf(count) {
  return { backlog_count: count, backlog_bytes: 4, oldest_message_timestamp_ms: count === 0 ? 0 : 1795473420076 };
}

/** A refusal as the broker writes it. */
export function refusal(status, code, message, headers = {}) {
  return { status, headers, result: null, envelope: { success: false, errors: [{ code, message }] } };
}
