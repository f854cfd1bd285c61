// What send(), sendBatch() and metrics() put on the wire, against what the Workers runtime itself sent and threw.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { sends } from './runtime/sends.js';
import { here, post, startGateway, startWorker } from './support.js';

const recorded = JSON.parse(readFileSync(here('runtime/recorded.json'), 'utf8'));

/** Where the command differs on purpose, and what it throws. */
const DIFFERENT = {
  // The runtime sends the text "undefined", which no consumer can read.
  'a function': ['TypeError', 'Message body cannot be undefined as JSON, which this function is'],
  'a symbol': ['TypeError', 'Message body cannot be undefined as JSON, which this symbol is'],
  'what becomes nothing': ['TypeError', 'Message body cannot be undefined as JSON, which this object is'],
  // The runtime leaves these to its queue service; here they are known to be refused.
  'a delay below zero': ['QueueError', 'delaySeconds: -1 is not 0 to 86400 (10203)'],
  'a delay of more than a day': ['QueueError', 'delaySeconds: 86401 is not 0 to 86400 (10203)'],
  'a batch of too many': ['QueueError', 'messages: a batch holds 1 to 100 messages, this one has more (10206)'],
  // The same error, said for somebody who reads it.
  'options that are a number': ['TypeError', 'the options of a send are no object, such as { delaySeconds: 30 }'],
  'a batch of nothing': ['TypeError', 'sendBatch() takes an array, or another iterable object, of messages'],
  'a batch that is an object': ['TypeError', 'sendBatch() takes an array, or another iterable object, of messages'],
  'a batch that is text': ['TypeError', 'sendBatch() takes an array, or another iterable object, of messages'],
  'a batch of numbers': ['TypeError', 'sendBatch() takes objects with a body; message 0 is none'],
};

/** What is sent differently on purpose. */
const SENT = {
  // The runtime sends the escape, at which parsers in other languages stop: the broker refuses it.
  'json with half a pair': [{ path: '/message', messages: [{ contentType: 'json', body: Buffer.from('"\ufffd"').toString('base64') }] }],
};

test(`the sends of ${recorded.runtime}`, async (t) => {
  assert.deepEqual(Object.keys(recorded.sends), Object.keys(sends), 'each send is recorded');
  assert.ok(Object.keys(sends).length > 40);
  const gateway = await startGateway(t);
  const args = ['--queue', 'QUEUE=orders', '--gateway', gateway.url];
  const program = await startWorker(t, here('runtime/sends.js'), { args });
  for (const name of Object.keys(sends)) {
    await t.test(name, async () => {
      gateway.requests.length = 0;
      if (name === 'metrics') gateway.answers.push({ result: { backlog_count: 3, backlog_bytes: 4, oldest_message_timestamp_ms: 1795473420076 } });
      const { verdict } = await post(program.fetchPort, `/?send=${encodeURIComponent(name)}`, {}, undefined, { method: 'GET' });
      const { sent, ...outcome } = recorded.sends[name];
      if (DIFFERENT[name]) {
        const [errorName, message] = DIFFERENT[name];
        assert.deepEqual(verdict, { threw: { name: errorName, message } });
        assert.equal(gateway.requests.length, 0);
        return;
      }
      assert.deepEqual(verdict, outcome);
      if (SENT[name]) assert.notDeepEqual(SENT[name], sent, 'it is no longer different');
      assert.deepEqual(gateway.requests.map(sentOf), SENT[name] ?? sent);
    });
  }
});

/** A request to the gateway, in the form in which the runtime's are recorded. */
function sentOf({ method, path, body }) {
  if (path === '/queues/orders/metrics') return { path: '/metrics' };
  assert.equal(method, 'POST');
  if (path === '/queues/orders/messages') return { path: '/message', messages: [messageOf(body)] };
  assert.equal(path, '/queues/orders/messages/batch');
  return { path: '/batch', messages: body.messages.map(messageOf), ...delayOf(body) };
}

function messageOf({ body, content_type: contentType, ...rest }) {
  const bytes = contentType === 'json' ? JSON.stringify(body) : body;
  const isBase64 = contentType === 'bytes' || contentType === 'v8';
  return { contentType, body: isBase64 ? body : Buffer.from(bytes).toString('base64'), ...delayOf(rest) };
}

function delayOf({ delay_seconds: delaySeconds }) {
  return delaySeconds === undefined ? {} : { delaySeconds };
}
