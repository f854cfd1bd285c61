// Every rule of ack, retry and waitUntil, played on the command, against what the Workers runtime itself answered.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { rules } from './runtime/rules.js';
import { deliver, here, messagesOf, startWorker } from './support.js';

const recorded = JSON.parse(readFileSync(here('runtime/recorded.json'), 'utf8'));

/** Where the runtime reports what the sidecar would take for a malformed verdict, a delay is put within its bounds. */
const BOUNDED = {
  'a delay below zero': [{ msgId: 'm1', delaySeconds: 0 }],
  'a delay of more than a day': [{ msgId: 'm1', delaySeconds: 86_400 }],
};

test(`the rules of ${recorded.runtime}`, async (t) => {
  assert.deepEqual(Object.keys(recorded.rules), Object.keys(rules), 'each rule is recorded');
  assert.ok(Object.keys(rules).length > 50);
  const program = await startWorker(t, here('runtime/rules.js'));
  for (const name of Object.keys(rules)) {
    await t.test(name, async () => {
      const expected = { ...recorded.rules[name] };
      if (BOUNDED[name]) expected.retryMessages = BOUNDED[name];
      const { status, verdict } = await deliver(program, messagesOf([1, 2, 3]), { queue: name });
      assert.deepEqual(verdict, expected);
      assert.equal(status, expected.outcome === 'ok' ? 200 : 500);
    });
  }
  await t.test('calls that have no effect are told', async () => {
    const { level, queue } = await program.line('ack() on message m1 came after retry(): it has no effect');
    assert.deepEqual([level, queue], ['warn', 'retry, then ack']);
    await program.line('delaySeconds 86401 of message m1 is not 0 to 86400: it is retried after 86400 s');
    await program.line('retry() on message m1 came after the batch was answered: it has no effect');
  });
  assert.deepEqual(await program.end(), { code: 0, signal: null });
});
