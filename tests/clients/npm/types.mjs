// Sends a body of each content type that the SDK's own types leave out, and prints what came back.
//
// The queue is empty and has a pull consumer.
import { deepStrictEqual } from 'node:assert';
import { deserialize, serialize } from 'node:v8';

import { connect, print, readArguments } from './client.mjs';

const { baseURL, account, queue } = readArguments();
const account_id = account;
const { messages } = connect(baseURL).queues;

const cyclic = { name: 'cyclic' };
cyclic.self = cyclic;
const values = {
  cyclic,
  bigint: 2n ** 70n,
  date: new Date(1_700_000_000_123),
  map: new Map([['a', new Set([1, 'b'])]]),
  pattern: /gr(ü|u)n/giu,
  floats: new Float64Array([0.5, -0, NaN]),
  error: new RangeError('out of range'),
  undefined,
};
const octets = Uint8Array.from({ length: 256 }, (_, n) => n);

/** Sends one body and answers how pull shows it, after peek showed the same. */
async function roundTrip(body, content_type) {
  await messages.push(queue, { account_id, body, content_type });
  const peeked = (await messages.peek(queue, { account_id })).messages;
  const pulled = (await messages.pull(queue, { account_id })).messages;
  const [message] = pulled;
  deepStrictEqual([peeked.length, pulled.length], [1, 1]);
  deepStrictEqual(peeked[0].body, message.body);
  await messages.ack(queue, { account_id, acks: [{ lease_id: message.lease_id }] });
  return { type: message.metadata['CF-Content-Type'], bytes: Buffer.from(message.body, 'base64') };
}

const told = {};
for (const [name, value] of Object.entries(values)) {
  const { type, bytes } = await roundTrip(serialize(value).toString('base64'), 'v8');
  deepStrictEqual(deserialize(bytes), value);
  told[name] = type;
}
const { type, bytes } = await roundTrip(Buffer.from(octets).toString('base64'), 'bytes');
deepStrictEqual(new Uint8Array(bytes), octets);
told.octets = type;
print(told);
