// fetch() over HTTP: the request that a handler gets, and what becomes of its response.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import zlib from 'node:zlib';

import { post, startWorker, until } from './support.js';

const get = (program, path, headers = {}) => post(program.fetchPort, path, headers, undefined, { method: 'GET' });

test('a handler gets the request', async (t) => {
  const program = await startWorker(
    t,
    `export default { async fetch(request, env, ctx) {
      const { method, url, redirect } = request;
      const own = [typeof ctx.waitUntil, typeof ctx.passThroughOnException, request instanceof Request, env.COLOUR];
      return Response.json({ method, url, redirect, headers: [...request.headers], body: await request.text(), own });
    } };`,
    { args: ['--var', 'COLOUR=red'] },
  );
  const headers = { host: 'shop.example', 'x-one': ['a', 'b'], 'content-type': 'text/plain' };
  const { status, verdict } = await post(program.fetchPort, '/orders?n=1&n=2', headers, 'a lamp');
  assert.equal(status, 200);
  assert.deepEqual([verdict.method, verdict.url], ['POST', 'http://shop.example/orders?n=1&n=2']);
  assert.deepEqual([verdict.body, verdict.redirect], ['a lamp', 'manual']);
  assert.deepEqual(verdict.own, ['function', 'function', true, 'red']);
  assert.deepEqual(new Map(verdict.headers).get('x-one'), 'a, b');
  const slashes = await get(program, '//other.example/path', { host: 'shop.example' });
  assert.equal(slashes.verdict.url, 'http://shop.example//other.example/path', 'a path is no host');
  for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
    const answer = await post(program.fetchPort, '/', { 'content-length': 4 }, 'body', { method });
    assert.deepEqual([answer.verdict.method, answer.verdict.body], [method, 'body']);
  }
});

test('a response is passed on: status, headers, cookies, body', async (t) => {
  const program = await startWorker(
    t,
    `export default { fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/redirect') return Response.redirect('https://shop.example/', 302);
      if (pathname === '/empty') return new Response(null, { status: 204 });
      const headers = new Headers({ 'x-kind': 'lamp', 'content-type': 'text/csv' });
      headers.append('set-cookie', 'a=1; Path=/');
      headers.append('set-cookie', 'b=2, 3');
      return new Response('id,n\\n', { status: 201, statusText: 'Made', headers });
    } };`,
  );
  const made = await get(program, '/');
  assert.deepEqual([made.status, made.text, made.headers['x-kind'], made.headers['content-type']], [201, 'id,n\n', 'lamp', 'text/csv']);
  assert.deepEqual(made.headers['set-cookie'], ['a=1; Path=/', 'b=2, 3']);
  const redirect = await get(program, '/redirect');
  assert.deepEqual([redirect.status, redirect.headers.location], [302, 'https://shop.example/']);
  assert.equal((await get(program, '/empty')).status, 204);
  const head = await post(program.fetchPort, '/', {}, undefined, { method: 'HEAD' });
  assert.deepEqual([head.status, head.text, head.headers['x-kind']], [201, '', 'lamp']);
});

test('bodies stream in both directions', async (t) => {
  const program = await startWorker(
    t,
    `export default { fetch(request) {
      return new Response(request.body.pipeThrough(new TransformStream({
        transform(chunk, controller) { controller.enqueue(new TextEncoder().encode(new TextDecoder().decode(chunk).toUpperCase())); },
      })));
    } };`,
  );
  const chunks = [];
  const request = http.request({ host: '127.0.0.1', port: program.fetchPort, method: 'POST' });
  request.write('one');
  const response = await new Promise((resolve) => request.on('response', resolve));
  const next = () => new Promise((resolve) => response.once('data', (chunk) => resolve(chunks.push(chunk.toString()))));
  await next();
  assert.deepEqual(chunks, ['ONE'], 'an answer begins before the request is whole');
  request.end('two');
  await next();
  assert.deepEqual(chunks, ['ONE', 'TWO']);
});

test('a response of another server is passed on decoded, as it is', async (t) => {
  const packed = zlib.gzipSync('a long text');
  const origin = http.createServer((_, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': packed.length, 'x-origin': 'yes' }).end(packed);
  });
  await new Promise((resolve) => origin.listen(0, '127.0.0.1', resolve));
  t.after(() => origin.close());
  t.after(() => origin.closeAllConnections());
  const program = await startWorker(
    t,
    `export default { async fetch(request) {
      const response = await fetch('http://127.0.0.1:${origin.address().port}/');
      return new URL(request.url).pathname === '/copy' ? new Response(response.body, response) : response;
    } };`,
  );
  for (const path of ['/', '/copy']) {
    const { status, text, headers } = await get(program, path);
    assert.deepEqual([status, text, headers['x-origin'], headers['content-encoding']], [200, 'a long text', 'yes', undefined]);
  }
});

test('a handler that fails is answered 500, and its error is only logged', async (t) => {
  const program = await startWorker(
    t,
    `export default { async fetch(request, env, ctx) {
      const { pathname } = new URL(request.url);
      if (pathname === '/pass') ctx.passThroughOnException();
      if (pathname === '/nothing') return;
      throw new Error('the password is 1234');
    } };`,
  );
  for (const path of ['/?token=secret', '/pass']) {
    const { status, text } = await get(program, path);
    assert.deepEqual([status, text], [500, 'Internal Server Error\n']);
  }
  assert.equal((await get(program, '/nothing')).status, 500);
  await program.stop();
  const [line] = program.lines('the handler failed');
  assert.match(line.error, /the password is 1234\n +at /);
  assert.deepEqual([line.method, line.path], ['GET', '/']);
  assert.match((await program.line('fetch() returned no Response')).error, /it returned undefined/);
  assert.doesNotMatch(program.err, /token/);
});

test('a response that breaks off does not look whole', async (t) => {
  const program = await startWorker(
    t,
    `export default { fetch() {
      let n = 0;
      return new Response(new ReadableStream({ pull(controller) {
        n += 1;
        if (n > 3) controller.error(new Error('the source broke'));
        else controller.enqueue(new TextEncoder().encode('part'));
      } }));
    } };`,
  );
  await assert.rejects(get(program, '/'), /aborted|socket hang up/);
  await program.line('the response could not be sent');
});

test('a client that goes away ends the stream, and the request says so', async (t) => {
  const program = await startWorker(
    t,
    `export default { fetch(request) {
      request.signal.addEventListener('abort', () => console.log('aborted'));
      return new Response(new ReadableStream({
        async pull(controller) { controller.enqueue(new Uint8Array(1024)); await new Promise((resolve) => setTimeout(resolve, 1)); },
        cancel() { console.log('cancelled'); },
      }));
    } };`,
  );
  const request = http.get({ host: '127.0.0.1', port: program.fetchPort });
  const response = await new Promise((resolve) => request.on('response', resolve));
  response.once('data', () => request.destroy());
  response.on('error', () => {});
  await until('both', () => (program.out.includes('aborted') && program.out.includes('cancelled') ? true : undefined));
  await program.stop();
  assert.deepEqual(program.lines('the response could not be sent'), []);
  assert.deepEqual(program.lines('a rejection was not handled'), []);
});

test('a client that goes away while it sends fails the read alone', async (t) => {
  const program = await startWorker(
    t,
    `export default { async fetch(request) {
      if (request.method === 'GET') return new Response('fine');
      console.log('began');
      if (new URL(request.url).pathname === '/read') await request.text().catch(() => console.log('read failed'));
      else await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
      console.log('done');
      return new Response();
    } };`,
  );
  for (const path of ['/read', '/ignore']) {
    const began = program.out.split('began').length;
    const socket = net.connect(program.fetchPort, '127.0.0.1');
    socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf`);
    await until('the call', () => (program.out.split('began').length > began ? true : undefined));
    socket.destroy();
    await until('its end', () => (program.out.split('done').length > began ? true : undefined));
  }
  assert.equal((await get(program, '/')).text, 'fine');
  await program.stop();
  assert.match(program.out, /read failed/);
  assert.deepEqual(program.lines('a rejection was not handled'), []);
});

test('a request that is too large, or is none', async (t) => {
  const program = await startWorker(
    t,
    `export default { async fetch(request) {
      let bytes = 0;
      try { for await (const chunk of request.body) bytes += chunk.length; } catch (error) { return new Response(error.message, { status: 400 }); }
      return new Response(String(bytes));
    } };`,
  );
  const megabyte = Buffer.alloc(1024 * 1024);
  const max = 100 * megabyte.length;
  const announced = await post(program.fetchPort, '/', { 'content-length': max + 1 }, undefined);
  assert.equal(announced.status, 413);
  const stream = (extra) =>
    new Promise((resolve, reject) => {
      const request = http.request({ host: '127.0.0.1', port: program.fetchPort, method: 'POST' }, async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve([response.statusCode, text]);
      });
      request.on('error', reject);
      let left = 100;
      const write = () => {
        left -= 1;
        if (left < 0) request.end(extra);
        else request.write(megabyte, () => setImmediate(write));
      };
      write();
    });
  assert.deepEqual(await stream(''), [200, String(max)]);
  assert.deepEqual(await stream('x'), [400, `the request has more than ${max} bytes`]);
  const raw = (text) =>
    new Promise((resolve) => {
      const socket = net.connect(program.fetchPort, '127.0.0.1', () => socket.write(text));
      let answer = '';
      socket.on('data', (chunk) => (answer += chunk)).on('close', () => resolve(answer.split('\r\n')[0]));
    });
  assert.equal(await raw('GET / HTTP/1.1\r\nhost: a b\r\n\r\n'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await raw('TRACE / HTTP/1.1\r\nhost: a\r\n\r\n'), 'HTTP/1.1 400 Bad Request');
  assert.equal(await raw('what\r\n\r\n'), 'HTTP/1.1 400 Bad Request');
});

test('waitUntil() outlives the response', async (t) => {
  const program = await startWorker(
    t,
    `let go;
    export default { fetch(request, env, ctx) {
      if (new URL(request.url).pathname === '/go') { go(); return new Response('gone'); }
      ctx.waitUntil(new Promise((resolve) => { go = resolve; }).then(() => console.log('in the background')));
      return new Response('at once');
    } };`,
  );
  assert.equal((await get(program, '/')).text, 'at once');
  assert.equal(program.out, '');
  await get(program, '/go');
  await until('the background', () => (program.out === 'in the background\n' ? true : undefined));
});

test('without fetch() there is no port for it', async (t) => {
  const program = await startWorker(t, `export default { queue() {} };`);
  assert.equal(program.fetchPort, undefined);
});
