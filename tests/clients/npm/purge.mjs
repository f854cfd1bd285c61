// Purges one message by its reference, and then all. The queue holds nothing before.
import { connect, print, readArguments } from './client.mjs';

const { baseURL, account, queue } = readArguments();
const account_id = account;
const { queues } = connect(baseURL);
const { messages, purge } = queues;
const left = async () => (await queues.getMetrics(queue, { account_id })).backlog_count;

const told = {};
for (let n = 0; n < 3; n += 1) await messages.push(queue, { account_id, body: n });
const peeked = (await messages.peek(queue, { account_id, batch_size: 10 })).messages;
told.byRef = await messages.purge(queue, { account_id, refs: [{ ref: peeked[0].ref }] });
told.leftByRef = await left();
told.unconfirmed = await purge.start(queue, { account_id, delete_messages_permanently: false }).then(
  () => null,
  (error) => ({ status: error.status, code: error.errors[0].code }),
);
told.start = await purge.start(queue, { account_id, delete_messages_permanently: true });
for (let n = 0; n < 100 && told.status?.completed !== 'true'; n += 1) {
  told.status = await purge.status(queue, { account_id });
}
told.left = await left();
print(told);
