// Sends COUNT messages, in batches and one by one, and prints how many were accepted.
//
// TEMPLATE is the JSON of a body in which every {n} becomes the message's number, from 1; {"n":{n}} when absent.
import { connect, print, readArguments } from './client.mjs';

const SENDERS = 4;
const BATCH = 40;
// After each batch so many go alone.
const SINGLES = 5;

const { baseURL, account, queue, rest } = readArguments('COUNT [TEMPLATE]');
const count = Number(rest[0]);
const template = rest[1] ?? '{"n":{n}}';
if (!Number.isInteger(count) || count < 1) {
  console.error('COUNT is a whole number of at least 1');
  process.exit(2);
}
const body = (n) => JSON.parse(template.replaceAll('{n}', String(n)));
body(1);

const client = connect(baseURL);
const failures = [];
let next = 1;
let accepted = 0;
let batches = 0;
let singles = 0;

/** The numbers of the next request: a batch, or one of the singles that follow it. */
function take(most) {
  const numbers = [];
  while (numbers.length < most && next <= count) numbers.push(next++);
  return numbers;
}

async function attempt(numbers, send) {
  try {
    await send();
    accepted += numbers.length;
    return true;
  } catch (error) {
    failures.push({ numbers, message: String(error.message ?? error) });
    return false;
  }
}

async function sender() {
  for (;;) {
    const numbers = take(BATCH);
    if (numbers.length === 0) return;
    const messages = numbers.map((n) => ({ body: body(n), content_type: 'json' }));
    const push = () => client.queues.messages.bulkPush(queue, { account_id: account, messages });
    if (await attempt(numbers, push)) batches += 1;
    for (let i = 0; i < SINGLES; i += 1) {
      const [n] = take(1);
      if (n === undefined) return;
      const one = () => client.queues.messages.push(queue, { account_id: account, body: body(n), content_type: 'json' });
      if (await attempt([n], one)) singles += 1;
    }
  }
}

await Promise.all(Array.from({ length: SENDERS }, sender));
print({ count, accepted, batches, singles, failures });
process.exit(failures.length === 0 ? 0 : 1);
