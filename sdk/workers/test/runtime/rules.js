// A Worker whose queue() plays one rule of the runtime for each name of a queue. The batch is always m1, m2, m3.
//
// It runs in the Workers runtime, which record.js asks what it answers, and in this package's command.

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const rules = {
  'nothing is said': () => {},
  'a value is returned': () => ({ ackAll: true }),
  'ack, then throw': ([m1]) => {
    m1.ack();
    throw new Error('after the ack');
  },
  'throw': () => {
    throw new Error('at once');
  },
  'throw undefined': () => {
    throw undefined;
  },
  'a rejected promise': () => Promise.reject(new Error('later')),
  'ack each': (messages) => messages.forEach((message) => message.ack()),
  'ack out of order': ([m1, , m3]) => {
    m3.ack();
    m1.ack();
  },
  'retry each': (messages) => messages.forEach((message) => message.retry()),
  'ack, then ack': ([m1]) => {
    m1.ack();
    m1.ack();
  },
  'retry, then ack': ([m1]) => {
    m1.retry({ delaySeconds: 5 });
    m1.ack();
  },
  'ack, then retry': ([m1]) => {
    m1.ack();
    m1.retry();
  },
  'retry, then retry with another delay': ([m1]) => {
    m1.retry({ delaySeconds: 5 });
    m1.retry({ delaySeconds: 9 });
  },
  'retry with a delay, then without': ([m1]) => {
    m1.retry({ delaySeconds: 5 });
    m1.retry();
  },
  'ackAll, then retry and retryAll': ([m1], batch) => {
    batch.ackAll();
    m1.retry();
    batch.retryAll();
  },
  'ackAll, then ack': ([m1], batch) => {
    batch.ackAll();
    m1.ack();
    batch.ackAll();
  },
  'retryAll, then ack, retry and ackAll': ([m1, m2], batch) => {
    batch.retryAll({ delaySeconds: 4 });
    m1.ack();
    m2.retry({ delaySeconds: 8 });
    batch.ackAll();
  },
  'ack and retry, then retryAll': ([m1, m2], batch) => {
    m1.ack();
    m2.retry({ delaySeconds: 2 });
    batch.retryAll({ delaySeconds: 30 });
  },
  'ack and retry, then ackAll': ([m1, m2], batch) => {
    m1.ack();
    m2.retry({ delaySeconds: 2 });
    batch.ackAll();
  },
  'retry, then retryAll, then ack': ([m1], batch) => {
    m1.retry({ delaySeconds: 2 });
    batch.retryAll();
    m1.ack();
  },
  'ackAll, then throw': (_, batch) => {
    batch.ackAll();
    throw new Error('after ackAll');
  },
  'retryAll, then throw': (_, batch) => {
    batch.retryAll({ delaySeconds: 4 });
    throw new Error('after retryAll');
  },
  'retryAll, then retryAll with another delay': (_, batch) => {
    batch.retryAll({ delaySeconds: 4 });
    batch.retryAll({ delaySeconds: 9 });
  },
  'retryAll with a delay, then without': (_, batch) => {
    batch.retryAll({ delaySeconds: 4 });
    batch.retryAll();
  },
  'a delay of zero': ([m1], batch) => {
    m1.retry({ delaySeconds: 0 });
    batch.retryAll({ delaySeconds: 0 });
  },
  'a delay that is a fraction': ([m1]) => m1.retry({ delaySeconds: 1.9 }),
  'a delay that is text': ([m1]) => m1.retry({ delaySeconds: '7' }),
  'a delay that is no number': ([m1]) => m1.retry({ delaySeconds: Number.NaN }),
  'a delay without end': ([m1]) => m1.retry({ delaySeconds: Number.POSITIVE_INFINITY }),
  'a delay that is null': ([m1]) => m1.retry({ delaySeconds: null }),
  'a delay below zero': ([m1]) => m1.retry({ delaySeconds: -1 }),
  'a delay of more than a day': ([m1]) => m1.retry({ delaySeconds: 86_401 }),
  'a delay of more than 32 bits': ([m1]) => m1.retry({ delaySeconds: 2 ** 31 }),
  'the longest delay': ([m1], batch) => {
    m1.retry({ delaySeconds: 86_400 });
    batch.retryAll({ delaySeconds: 86_400 });
  },
  'options that are null': ([m1]) => m1.retry(null),
  'options without a delay': ([m1]) => m1.retry({}),
  'options that are a number': ([m1]) => m1.retry(5),
  'options that are text': ([m1]) => m1.retry('5'),
  'ack with an argument': ([m1]) => m1.ack(5),
  'ack without its message': ([m1]) => {
    const { ack } = m1;
    ack();
  },
  'verdicts after an await': async ([m1, m2]) => {
    await sleep(5);
    m2.ack();
    m1.retry({ delaySeconds: 3 });
  },
  'verdicts in a promise that is waited for': ([m1], _, ctx) => {
    ctx.waitUntil(sleep(20).then(() => m1.retry({ delaySeconds: 6 })));
  },
  'a promise that is waited for is rejected': ([m1], _, ctx) => {
    m1.ack();
    ctx.waitUntil(Promise.reject(new Error('waited for')));
  },
  'a promise that is waited for is rejected late': ([m1], _, ctx) => {
    ctx.waitUntil(sleep(20).then(() => Promise.reject(new Error('late'))));
    m1.ack();
  },
  'a promise that waits for another': ([, , m3], _, ctx) => {
    ctx.waitUntil(sleep(10).then(() => ctx.waitUntil(sleep(10).then(() => m3.retry()))));
  },
  'a promise that waits for another, which is rejected': (_, __, ctx) => {
    ctx.waitUntil(sleep(10).then(() => ctx.waitUntil(sleep(10).then(() => Promise.reject(new Error('inner'))))));
  },
  'throw, with a verdict in a promise that is waited for': ([m1], _, ctx) => {
    ctx.waitUntil(sleep(20).then(() => m1.ack()));
    throw new Error('before the ack');
  },
  'waitUntil with a value': (_, __, ctx) => ctx.waitUntil(5),
  'waitUntil without a value': (_, __, ctx) => ctx.waitUntil(),
  'passThroughOnException, then throw': (_, __, ctx) => {
    ctx.passThroughOnException();
    throw new Error('passed through');
  },
  'a verdict in a timer that nothing waits for': ([m1]) => {
    setTimeout(() => m1.retry(), 20);
  },
  'a rejection that nothing waits for': () => {
    Promise.reject(new Error('nobody waits'));
  },
  'a timer that throws': () => {
    setTimeout(() => {
      throw new Error('in a timer');
    }, 1);
    return sleep(20);
  },
};

export default {
  async queue(batch, _env, ctx) {
    return rules[batch.queue](batch.messages, batch, ctx);
  },
};
