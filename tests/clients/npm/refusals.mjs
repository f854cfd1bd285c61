// Makes the SDK fail in every way the broker refuses, and prints its error class, the codes, and how often it tried.
//
// PAUSED is a queue whose delivery is paused, SMALL one that holds a single message at most.
import { connect, print, readArguments } from './client.mjs';

const { baseURL, account, queue, rest } = readArguments('PAUSED SMALL');
const [paused, small] = rest;
let requests = 0;
const counting = (...request) => {
  requests += 1;
  return fetch(...request);
};
const client = connect(baseURL, { fetch: counting });
const account_id = account;
const { messages } = client.queues;

const attempts = {
  unknownQueue: () => messages.push('nowhere', { account_id, body: 1 }),
  malformedId: () => client.queues.get('Not_A_Name', { account_id }),
  contentType: () => messages.push(queue, { account_id, body: 1, content_type: 'xml' }),
  delay: () => messages.push(queue, { account_id, body: 1, delay_seconds: 86401 }),
  batchDelay: () => messages.bulkPush(queue, { account_id, messages: [{ body: 1 }], delay_seconds: 86401 }),
  tooLarge: () => messages.push(queue, { account_id, body: 'x'.repeat(128001), content_type: 'text' }),
  batchTooLarge: () =>
    messages.bulkPush(queue, { account_id, messages: [1, 2, 3].map(() => ({ body: 'x'.repeat(90000) })) }),
  tooMany: () => messages.bulkPush(queue, { account_id, messages: Array.from({ length: 101 }, (_, n) => ({ body: n })) }),
  noMessages: () => messages.bulkPush(queue, { account_id, messages: [] }),
  wrongType: () => messages.pull(queue, { account_id, batch_size: 'many' }),
  lease: () => messages.ack(queue, { account_id, acks: [{ lease_id: 'nonsense' }] }),
  paused: () => messages.pull(paused, { account_id }),
  full: async () => {
    await messages.push(small, { account_id, body: 1 });
    requests = 0;
    await messages.push(small, { account_id, body: 2 });
  },
  create: () => client.queues.create({ account_id, queue_name: 'made' }),
  update: () => client.queues.update(queue, { account_id, queue_name: 'renamed' }),
  edit: () => client.queues.edit(queue, { account_id, settings: { delivery_delay: 1 } }),
  delete: () => client.queues.delete(queue, { account_id }),
  createConsumer: () => client.queues.consumers.create(queue, { account_id, type: 'http_pull' }),
  deleteConsumer: () => client.queues.consumers.delete('any', { account_id, queue_id: queue }),
};

const told = {};
for (const [name, attempt] of Object.entries(attempts)) {
  requests = 0;
  try {
    await attempt();
    told[name] = { class: null, requests };
  } catch (error) {
    const { status, errors } = error;
    told[name] = { class: error.constructor.name, status, errors, message: error.message, requests };
  }
}
print(told);
