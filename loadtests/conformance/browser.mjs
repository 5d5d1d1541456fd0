import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** Command line flags of Chromium. */
export const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Collects console messages, errors, failed and foreign requests. @param {string[]} origins allowed for requests */
export function watch(context, page, ...origins) {
  const noise = [];
  page.on('console', (message) => noise.push(`console ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => noise.push(`page error: ${error.message}`));
  // A request that the page aborts is not a failure: the page leaves a stream in this way.
  const isLeft = (request) => request.failure()?.errorText === 'net::ERR_ABORTED';
  page.on('requestfailed', (request) => isLeft(request) || noise.push(`failed: ${request.url()}`));
  page.on('response', (response) => response.status() >= 400 && noise.push(`${response.status()}: ${response.url()}`));
  context.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== 'data:' && !origins.includes(origin)) noise.push(`foreign: ${request.url().slice(0, 100)}`);
  });
  context.on('page', () => noise.push('a second page was opened'));
  return noise;
}

/** Clicks "Execute query" and returns the data of the server's response to the operation. */
async function execute(page, operationName) {
  const answer = page.waitForResponse(
    (response) => response.request().postDataJSON()?.operationName === operationName,
  );
  await page.getByRole('button', { name: /execute query/i }).click();
  const result = await (await answer).json();
  assert.ok(!result.errors, `${operationName}: ${JSON.stringify(result.errors)}`);
  return result.data;
}

/** Replaces the content of the query editor. */
async function write(page, query) {
  await page.locator('.graphiql-query-editor .CodeMirror').first().click();
  await page.keyboard.press('Control+A');
  await page.keyboard.insertText(query);
}

/** Starts a compliance run and watches it with a subscription. */
async function watchRun(page) {
  await page.locator('#graphiql-session-tab-3').click();
  await page.getByRole('button', { name: /execute query/i }).click(); // the prepared tab subscribes to jobs
  await page.getByRole('button', { name: /stop query/i }).click();
  await write(page, 'mutation Start { startComplianceRun { id } }');
  const { startComplianceRun } = await execute(page, 'Start');
  await write(page, `subscription Watch { complianceRun(id: "${startComplianceRun.id}") { __typename shardsDone } }`);
  await page.getByRole('button', { name: /execute query/i }).click();
  await page.locator('.result-window').getByText('"ComplianceRun"').first().waitFor();
}

/** @param {string} url @param {{email: string, password: string}} person */
async function walk(page, url, person) {
  const response = await page.goto(`${url}/`);
  assert.match(page.url(), /\/playground\/?$/, '/ does not redirect to the playground');
  assert.equal(await page.title(), 'SentryOps playground');
  const policy = response.headers()['content-security-policy'] ?? '';
  assert.match(policy, /default-src 'none'/, 'the playground has no strict CSP');
  assert.doesNotMatch(policy, /unsafe-|\*|https?:/, `the CSP is too permissive: ${policy}`);

  const status = page.getByRole('status');
  await status.getByText('Not signed in').waitFor();
  await page.getByRole('region', { name: 'Variables' }).locator('.CodeMirror').first().click();
  await page.keyboard.press('Control+A');
  await page.keyboard.insertText(JSON.stringify(person));
  await execute(page, 'SignIn');
  await status.getByText('Signed in', { exact: true }).waitFor();

  await page.locator('#graphiql-session-tab-2').click();
  const { assets } = await execute(page, 'Assets');
  assert.ok(assets.nodes.length > 0, 'the demo has no assets');
  await page.locator('.result-window').getByText(`"${assets.nodes[0].name}"`).first().waitFor();

  await watchRun(page);

  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  const docs = page.locator('.graphiql-doc-explorer');
  await docs.getByRole('link', { name: 'Query', exact: true }).click();
  await docs.getByText('assets', { exact: true }).waitFor();
  return assets.nodes.length;
}

/**
 * Signs in on the playground, then opens the assets, a subscription and the documentation.
 *
 * @param {{url: string, person?: {email: string, password: string}, chromium: string, screenshot?: string}} options
 * @returns {Promise<string>}
 */
export async function browser({ url, person, chromium: executablePath, screenshot }) {
  if (!person) throw new Error('with --url, the browser step needs --credentials');
  const folder = await mkdtemp(join(tmpdir(), 'conformance-browser-'));
  let context;
  try {
    const viewport = { width: 1280, height: 800 };
    context = await chromium.launchPersistentContext(folder, { executablePath, args: FLAGS, viewport });
    context.setDefaultTimeout(15_000);
    const page = context.pages()[0];
    const noise = watch(context, page, new URL(url).origin);
    try {
      const shown = await walk(page, url, person);
      await page.waitForTimeout(500); // late console messages and requests
      assert.ok(noise.length === 0, `the page is not quiet:\n${noise.join('\n')}`);
      return `signed in, ${shown} assets, a subscription, documentation; no console message, no foreign request`;
    } catch (error) {
      if (noise.length > 0 && !error.message.startsWith('the page is not quiet')) error.message += `\n${noise.join('\n')}`;
      throw error;
    } finally {
      if (screenshot) await page.screenshot({ path: screenshot });
    }
  } finally {
    await context?.close();
    await rm(folder, { recursive: true, force: true });
  }
}
