// A producer with its consumer: orders are taken at once, and handled from the queue.

export default {
  /** POST /orders takes an order; GET /orders/ID shows it once it is handled. */
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/orders' && request.method === 'POST') return take(request, env);
    const id = /^\/orders\/([\w-]+)$/.exec(pathname)?.[1];
    const order = id === undefined ? null : await env.STORE.get(id);
    return order === null ? new Response('not there\n', { status: 404 }) : new Response(order);
  },

  async queue(batch, env) {
    for (const message of batch.messages) {
      const { id, item } = message.body;
      try {
        // A message can come twice. The store has one value for an id, so the second time changes nothing.
        await env.STORE.put(id, JSON.stringify({ id, item, shop: env.SHOP, handledAt: new Date().toISOString() }));
        message.ack();
      } catch (error) {
        console.error(`order ${id}, attempt ${message.attempts}: ${error.message}`);
        message.retry({ delaySeconds: 2 ** message.attempts });
      }
    }
  },
};

async function take(request, env) {
  const order = await request.json().catch(() => undefined);
  if (typeof order?.item !== 'string') return new Response('an order has an item\n', { status: 400 });
  const id = crypto.randomUUID();
  await env.ORDERS.send({ id, item: order.item });
  return Response.json({ id }, { status: 202 });
}
