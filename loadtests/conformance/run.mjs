// Conformance as clients see it: the GraphQL over HTTP audits, GraphQL Code Generator, Apollo Client, graphql-ws and
// graphql-sse in a browser, the playground.
import { parseArgs } from 'node:util';
import { audits } from './audits.mjs';
import { browser } from './browser.mjs';
import { clients } from './clients.mjs';
import { codegen } from './codegen.mjs';
import { start, stop } from './server.mjs';

// `clients` needs the files that `codegen` generates.
const STEPS = { audits, codegen, clients, browser };
const USAGE = `node run.mjs --binary PATH [--only audits,codegen,clients,browser] [--screenshot FILE]
node run.mjs --url URL --credentials EMAIL:PASSWORD --schema FILE [--only …] [--screenshot FILE]

  --binary PATH        the sentryops binary: runs up --demo and prints the SDL
  --url URL            a running server, instead of starting one
  --credentials E:P    the user who signs in there
  --schema FILE        a file with the SDL, instead of the binary's
  --only STEPS         only these steps: audits, codegen, clients, browser
  --screenshot FILE    write a PNG of the playground after the browser step
  --chromium PATH      the browser (default: CHROMIUM, else /usr/bin/chromium)`;

/** @param {string} problem @returns {never} */
function refuse(problem) {
  console.error(`${problem}\n\n${USAGE}`);
  process.exit(2);
}

function options() {
  const names = ['binary', 'url', 'credentials', 'schema', 'only', 'screenshot', 'chromium'];
  let values;
  try {
    const flags = Object.fromEntries(names.map((name) => [name, { type: 'string' }]));
    ({ values } = parseArgs({ options: { ...flags, help: { type: 'boolean', short: 'h' } } }));
  } catch (error) {
    refuse(error.message);
  }
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const only = values.only?.split(',') ?? Object.keys(STEPS);
  for (const name of only) if (!(name in STEPS)) refuse(`unknown step ${name}`);
  const served = only.some((name) => name !== 'codegen');
  if (served && !values.binary && !values.url) refuse('--binary or --url is required');
  if (only.includes('codegen') && !values.binary && !values.schema) refuse('the codegen step needs --binary or --schema');
  const [, email, password] = /^([^:]+):(.+)$/.exec(values.credentials ?? '') ?? [];
  if (values.url && !password && only.some((name) => name === 'browser' || name === 'clients')) {
    refuse('with --url, the browser and clients steps need --credentials');
  }
  return {
    ...values,
    only,
    served,
    url: values.url?.replace(/\/+$/, ''),
    person: password ? { email, password } : undefined,
    chromium: values.chromium ?? process.env.CHROMIUM ?? '/usr/bin/chromium',
  };
}

const given = options();
const rows = [];
const details = [];

/** @param {string} name @param {() => Promise<string>} work returns a summary, or throws */
async function step(name, work) {
  const began = performance.now();
  let row = ['ok', ''];
  try {
    row[1] = await work();
  } catch (error) {
    const [first, ...rest] = String(error?.message ?? error).split('\n');
    row = ['FAILED', first];
    if (rest.length > 0) details.push(`${name}: ${first}\n${rest.join('\n')}`);
  }
  rows.push([name, row[0], `${((performance.now() - began) / 1000).toFixed(1)} s`, row[1]]);
  return row[0] === 'ok';
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await stop().catch(() => {});
    process.exit(130);
  });
}

let server;
let target = { ...given };
const up =
  !given.served ||
  given.url ||
  (await step('start', async () => {
    server = await start(given.binary);
    target = { ...given, url: server.url, person: given.person ?? server.people.admin };
    return `up --demo, ready, ${Object.keys(server.people).length} people`;
  }));
for (const name of given.only) {
  if (up || name === 'codegen') await step(name, () => STEPS[name](target));
}
if (server) await step('stop', stop);

for (const [name, result, time, text] of rows) {
  console.log(`${name.padEnd(8)} ${result.padEnd(6)} ${time.padStart(7)}  ${text}`);
}
for (const detail of details) console.error(`\n${detail}`);
process.exitCode = rows.every(([, result]) => result === 'ok') ? 0 : 1;
