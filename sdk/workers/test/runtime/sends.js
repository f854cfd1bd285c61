// A Worker whose fetch() plays one send for each name in its query, and answers with what the send returned or threw.

export const sends = {
  'an object': (queue) => queue.send({ order: 17, items: ['lamp'] }),
  'null': (queue) => queue.send(null),
  'nothing': (queue) => queue.send(undefined),
  'a number that is none': (queue) => queue.send(Number.NaN),
  'a date': (queue) => queue.send(new Date(0)),
  'a map': (queue) => queue.send(new Map([[1, 2]])),
  'a function': (queue) => queue.send(() => 1),
  'a symbol': (queue) => queue.send(Symbol('no')),
  'what becomes nothing': (queue) => queue.send({ toJSON: () => undefined }),
  'a big integer': (queue) => queue.send(10n),
  'a circle': (queue) => {
    const circle = {};
    circle.self = circle;
    return queue.send(circle);
  },
  'text': (queue) => queue.send('hé "quoted"\n', { contentType: 'text' }),
  'text with half a pair': (queue) => queue.send('\ud800', { contentType: 'text' }),
  'text that is a number': (queue) => queue.send(5, { contentType: 'text' }),
  'json with half a pair': (queue) => queue.send('\ud800'),
  'bytes': (queue) => queue.send(new Uint8Array([0, 1, 2, 255]).subarray(1), { contentType: 'bytes' }),
  'bytes of a view': (queue) => queue.send(new DataView(new ArrayBuffer(2)), { contentType: 'bytes' }),
  'bytes of floats': (queue) => queue.send(new Float32Array([1]), { contentType: 'bytes' }),
  'bytes that are a buffer': (queue) => queue.send(new ArrayBuffer(2), { contentType: 'bytes' }),
  'bytes that are text': (queue) => queue.send('x', { contentType: 'bytes' }),
  'v8': (queue) => queue.send({ at: new Date(0), big: 1n, set: new Set([1]), bytes: new Uint8Array([1, 2]) }, { contentType: 'v8' }),
  'v8 of a circle': (queue) => {
    const circle = { map: new Map() };
    circle.map.set('self', circle);
    return queue.send(circle, { contentType: 'v8' });
  },
  'v8 of a function': (queue) => queue.send(() => 1, { contentType: 'v8' }),
  'a content type in capitals': (queue) => queue.send('x', { contentType: 'TEXT' }),
  'a content type that is none': (queue) => queue.send('x', { contentType: 'xml' }),
  'a content type that is null': (queue) => queue.send('x', { contentType: null }),
  'a content type that is undefined': (queue) => queue.send('x', { contentType: undefined }),
  'options that are null': (queue) => queue.send('x', null),
  'options that are a number': (queue) => queue.send('x', 5),
  'a delay': (queue) => queue.send('x', { delaySeconds: 60 }),
  'a delay of zero': (queue) => queue.send('x', { delaySeconds: 0 }),
  'a delay that is a fraction': (queue) => queue.send('x', { delaySeconds: 1.9 }),
  'a delay that is text': (queue) => queue.send('x', { delaySeconds: '7' }),
  'a delay that is no number': (queue) => queue.send('x', { delaySeconds: Number.NaN }),
  'a delay that is null': (queue) => queue.send('x', { delaySeconds: null }),
  'a delay below zero': (queue) => queue.send('x', { delaySeconds: -1 }),
  'a delay of more than a day': (queue) => queue.send('x', { delaySeconds: 86_401 }),
  'a delay of more than 32 bits': (queue) => queue.send('x', { delaySeconds: 2 ** 31 }),
  'a batch': (queue) =>
    queue.sendBatch([{ body: { n: 1 } }, { body: 't', contentType: 'text', delaySeconds: 4 }, { body: 2, delaySeconds: 0 }], {
      delaySeconds: 9,
    }),
  'a batch from a generator': (queue) =>
    queue.sendBatch(
      (function* () {
        yield { body: 1 };
        yield { body: 2 };
      })(),
    ),
  'a batch from a set': (queue) => queue.sendBatch(new Set([{ body: 1 }])),
  'a batch without messages': (queue) => queue.sendBatch([]),
  'a batch of nothing': (queue) => queue.sendBatch(),
  'a batch that is an object': (queue) => queue.sendBatch({}),
  'a batch that is text': (queue) => queue.sendBatch('ab'),
  'a batch of numbers': (queue) => queue.sendBatch([1]),
  'a batch with a message without body': (queue) => queue.sendBatch([{ body: 1 }, {}]),
  'a batch of a hundred': (queue) => queue.sendBatch(Array.from({ length: 100 }, (_, n) => ({ body: n }))),
  'a batch of too many': (queue) => queue.sendBatch(Array.from({ length: 101 }, (_, n) => ({ body: n }))),
  'metrics': (queue) => queue.metrics(),
};

export default {
  async fetch(request, env) {
    const name = new URL(request.url).searchParams.get('send');
    try {
      return Response.json({ returned: await sends[name](env.QUEUE) });
    } catch (error) {
      return Response.json({ threw: { name: error.name, message: error.message } });
    }
  },
};
