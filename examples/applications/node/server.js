// Takes batches of orders, and says of each what became of it.
const http = require('node:http');

function handle(order) {
  if (!order?.item) throw new Error('an order needs an item');
}

async function take(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const verdict = { explicitAcks: [], retryMessages: [] };
  for (const { id, body, attempts } of JSON.parse(Buffer.concat(chunks)).messages) {
    try {
      handle(body);
      verdict.explicitAcks.push(id);
    } catch (error) {
      console.log(`message ${id} failed, attempt ${attempts}: ${error.message}`);
      verdict.retryMessages.push({ msgId: id, delaySeconds: attempts });
    }
  }
  return JSON.stringify(verdict);
}

const server = http.createServer((request, response) => {
  if (request.method !== 'POST' || request.url !== '/orders') return response.writeHead(404).end();
  take(request).then(
    (verdict) => response.writeHead(200, { 'content-type': 'application/json' }).end(verdict),
    () => response.writeHead(400).end(),
  );
});
server.listen(process.env.PORT ?? 8080);
// Open requests are finished.
process.on('SIGTERM', () => server.close());
