// An ETL pipeline: readings of sensors are taken as fast as they come, and written at the pace of the warehouse.

const BATCH = 100;

export default {
  /** POST /readings takes a list of readings. They are safe once this is answered, however many wait. */
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname !== '/readings' || request.method !== 'POST') return new Response('not there\n', { status: 404 });
    const readings = await request.json().catch(() => undefined);
    if (!Array.isArray(readings)) return new Response('readings are a list\n', { status: 400 });
    for (let at = 0; at < readings.length; at += BATCH) {
      await env.READINGS.sendBatch(readings.slice(at, at + BATCH).map((body) => ({ body })));
    }
    return Response.json({ taken: readings.length }, { status: 202 });
  },

  async queue(batch, env) {
    const rows = [];
    const rejected = [];
    for (const { id, body } of batch.messages) {
      const row = transform(id, body);
      if (row === undefined) rejected.push({ body: { id, reading: body } });
      else rows.push(row);
    }
    try {
      if (rejected.length > 0) await env.REJECTED.sendBatch(rejected);
      // A batch is one object. Whoever reads it drops rows with an id that was there before: a batch can be repeated.
      if (rows.length > 0) await env.WAREHOUSE.put(`readings/${rows[0].id}.ndjson`, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    } catch (error) {
      // A warehouse that is busy is left alone, longer each time. Nothing is lost meanwhile: it waits in the queue.
      const attempts = Math.max(...batch.messages.map((message) => message.attempts));
      console.error(`${batch.messages.length} readings wait: ${error.message}`);
      batch.retryAll({ delaySeconds: Math.min(5 * 2 ** attempts, 600) });
    }
  },
};

/** A row in the warehouse's form; undefined when the reading is none. */
function transform(id, reading) {
  const { sensor, fahrenheit, at } = reading ?? {};
  const time = new Date(at);
  if (typeof sensor !== 'string' || !Number.isFinite(fahrenheit) || Number.isNaN(time.getTime())) return undefined;
  return { id, sensor: sensor.toLowerCase(), celsius: Math.round(((fahrenheit - 32) / 1.8) * 100) / 100, at: time.toISOString() };
}
