// A crawler that feeds its own queue: each page that it reads sends the pages that it links to.

const BATCH = 100;
const PAGE_BYTES_MAX = 1_000_000;

export default {
  /** POST /crawl with {"url": "https://…"} begins; GET /pages shows what was read. A crawler of other people's sites asks their robots.txt first. */
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === '/pages') return Response.json((await env.STORE.list()).keys.map((key) => key.name).sort());
    if (pathname !== '/crawl' || request.method !== 'POST') return new Response('not there\n', { status: 404 });
    const { url } = (await request.json().catch(() => undefined)) ?? {};
    if (!URL.canParse(url)) return new Response('a crawl has a url\n', { status: 400 });
    await env.CRAWL.send({ url: new URL(url).href, depth: 0 });
    return new Response(null, { status: 202 });
  },

  async queue(batch, env) {
    await Promise.all(batch.messages.map((message) => visit(message, env)));
  },
};

async function visit(message, env) {
  const { url, depth } = message.body;
  try {
    if ((await env.STORE.get(url)) !== null) return message.ack();
    const response = await fetch(url, { signal: AbortSignal.timeout(20_000) });
    // A site that is busy says when to come again.
    if (response.status === 429 || response.status >= 500) return again(message, Number(response.headers.get('retry-after')));
    const html = response.ok ? await textOf(response) : '';
    const links = depth < env.DEPTH_MAX ? await unread(linksOf(html, url), env) : [];
    for (let at = 0; at < links.length; at += BATCH) {
      await env.CRAWL.sendBatch(links.slice(at, at + BATCH).map((link) => ({ body: { url: link, depth: depth + 1 } })));
    }
    // Last, so that a page whose links were not sent is read again.
    await env.STORE.put(url, JSON.stringify({ status: response.status, title: titleOf(html), depth, links: links.length }));
    message.ack();
  } catch (error) {
    console.error(`${url}: ${error.cause?.code ?? error.message}`);
    again(message);
  }
}

function again(message, seconds) {
  message.retry({ delaySeconds: seconds > 0 ? seconds : 10 * 2 ** message.attempts });
}

/** The beginning of a page: some have no end. */
async function textOf(response) {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    bytes += chunk.length;
    if (bytes > PAGE_BYTES_MAX) break;
  }
  return text;
}

async function unread(links, env) {
  const known = await Promise.all(links.map((link) => env.STORE.get(link)));
  return links.filter((_, index) => known[index] === null);
}

/** Pages of the same site that a page links to, each once. */
function linksOf(html, url) {
  const found = [...html.matchAll(/<a\s[^>]*href\s*=\s*["']([^"']*)["']/gi)].map(([, href]) => href);
  const links = found.filter((href) => URL.canParse(href, url)).map((href) => new URL(href.split('#')[0], url));
  return [...new Set(links.filter((link) => link.origin === new URL(url).origin).map((link) => link.href))];
}

function titleOf(html) {
  return /<title[^>]*>([^<]*)/i.exec(html)?.[1].trim() ?? '';
}
