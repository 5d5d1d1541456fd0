import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { FLAGS, watch } from './browser.mjs';

/** Origin of a frontend's development server, which is the default of CORS_ORIGINS in development. */
const FRONTEND = 'http://localhost:3000';
const here = fileURLToPath(new URL('.', import.meta.url));

async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [`${here}clients/page.ts`],
    bundle: true,
    write: false,
    format: 'iife',
    target: 'chrome111',
    define: { 'process.env.NODE_ENV': '"production"', 'globalThis.__DEV__': 'false', __DEV__: 'false' },
  });
  return outputFiles[0].text;
}

const PAGE = '<!doctype html><link rel="icon" href="data:,"><script src="/page.js"></script>';

/** Starts a frontend's server. A page without a real address would not do: Chromium blocks its calls to localhost. */
async function serve(script) {
  const server = createServer(({ url }, response) => {
    const [type, body] = url.endsWith('.js') ? ['text/javascript', script] : ['text/html', PAGE];
    response.writeHead(200, { 'content-type': type, connection: 'close' }).end(body);
  });
  server.listen(Number(new URL(FRONTEND).port), 'localhost');
  await once(server, 'listening');
  return server;
}

/**
 * Third-party clients sign in, read, change and watch, from a page of another origin.
 *
 * @param {{url: string, person?: {email: string, password: string}, chromium: string}} options
 * @returns {Promise<string>}
 */
export async function clients({ url, person, chromium: executablePath }) {
  if (!person) throw new Error('with --url, the clients step needs --credentials');
  const frontend = await serve(await bundle());
  const folder = await mkdtemp(join(tmpdir(), 'conformance-clients-'));
  let context;
  try {
    context = await chromium.launchPersistentContext(folder, { executablePath, args: FLAGS });
    context.setDefaultTimeout(60_000);
    const page = context.pages()[0];
    const noise = watch(context, page, new URL(url).origin, FRONTEND);
    await page.goto(`${FRONTEND}/`);
    const told = await page.evaluate(([url, person]) => globalThis.tell(url, person), [url, person]);
    for (const [name, what] of Object.entries(told)) assert.doesNotMatch(what, /^FAILED/, `${name}: ${what}\n${noise.join("\n")}`);
    assert.ok(noise.length === 0, `the page is not quiet:\n${noise.join('\n')}`);
    return `${Object.keys(told).join(', ')}: signed in, watched a run (${told['graphql-ws']})`;
  } finally {
    await context?.close();
    frontend.close();
    await rm(folder, { recursive: true, force: true });
  }
}
