// Goes through every call of the SDK that Capstan answers, and prints what the SDK returned for each.
//
// The queue is empty, has a pull consumer, and its retries are due at once.
import { connect, print, readArguments } from './client.mjs';

const { baseURL, account, queue } = readArguments();
const client = connect(baseURL);
const account_id = account;
const collect = async (page) => {
  const items = [];
  for await (const item of page) items.push(item);
  return items;
};

const told = {};
told.list = await collect(client.queues.list({ account_id }));
told.get = await client.queues.get(queue, { account_id });
told.consumers = await collect(client.queues.consumers.list(queue, { account_id }));
told.consumer = await client.queues.consumers.get(told.consumers[0].consumer_id, { account_id, queue_id: queue });

told.push = await client.queues.messages.push(queue, { account_id, body: { n: 1, text: 'grüße' } });
told.pushText = await client.queues.messages.push(queue, { account_id, body: 'plain', content_type: 'text' });
told.bulkPush = await client.queues.messages.bulkPush(queue, {
  account_id,
  messages: [
    { body: { n: 3 }, content_type: 'json' },
    { body: 'four', content_type: 'text' },
    { body: { n: 5 }, delay_seconds: 3600 },
  ],
});
told.metrics = await client.queues.getMetrics(queue, { account_id });
told.peek = await client.queues.messages.peek(queue, { account_id, batch_size: 2 });
told.pull = await client.queues.messages.pull(queue, { account_id, batch_size: 10, visibility_timeout_ms: 60000 });
told.empty = await client.queues.messages.pull(queue, { account_id });

const [first, ...others] = told.pull.messages.map((message) => ({ lease_id: message.lease_id }));
told.ack = await client.queues.messages.ack(queue, { account_id, acks: others, retries: [{ ...first, delay_seconds: 0 }] });
told.again = await client.queues.messages.pull(queue, { account_id });
const last = told.again.messages.map((message) => ({ lease_id: message.lease_id }));
told.ackAgain = await client.queues.messages.ack(queue, { account_id, acks: last });
told.ackTwice = await client.queues.messages.ack(queue, { account_id, acks: last });
told.after = await client.queues.getMetrics(queue, { account_id });
print(told);
