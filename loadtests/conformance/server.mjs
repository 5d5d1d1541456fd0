import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const START_SECONDS = 120;
const STOP_SECONDS = 45;
const PERSON = /^\s*(owner|admin|operator|viewer)\s+(\S+@\S+)\s+(\S+)\s*$/;
/** Roles of the demo whose passwords must be printed. */
const PEOPLE = ['admin', 'operator', 'viewer'];
/** Variables that would make `up` use existing stores instead of private ones. */
const FOREIGN = ['DATABASE_URL', 'DATABASE_OWNER_URL', 'REDIS_URL'].flatMap((name) => [name, `${name}_FILE`]);

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

/** @param {string} url @param {() => void} alive throws when waiting is pointless */
async function ready(url, alive) {
  for (;;) {
    alive();
    const answer = await fetch(url, { signal: AbortSignal.timeout(2000) }).catch(() => null);
    if (answer?.status === 200) return;
    await sleep(200);
  }
}

/** @type {(() => Promise<string>) | null} */
let running = null;

/** Stops the process that `start` started, with SIGTERM as an operator would, and removes its data. */
export const stop = async () => running?.();

/**
 * Starts `up --demo` on free ports and a new data folder.
 *
 * @param {string} binary
 * @returns {Promise<{url: string, people: Record<string, {email: string, password: string}>}>}
 */
export async function start(binary) {
  const [listen, health] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  // The binary creates the folder: as root, it drops to a user who could not enter a folder created here.
  const folder = join(tmpdir(), `sentryops-${randomUUID().slice(0, 8)}`);
  const env = { ...process.env, DATA_DIR: folder, LISTEN_ADDR: listen, HEALTH_ADDR: health };
  for (const name of FOREIGN) delete env[name];

  const child = spawn(binary, ['up', '--demo'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const failure = once(child, 'error').then(([error]) => error);
  const ended = once(child, 'close').then(([code, signal]) => signal ?? code);
  let end = null;
  failure.then((error) => (end = error.message), () => {});
  ended.then((code) => (end = `exit ${code}`), () => {});

  let text = '';
  const people = {};
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (part) => (text += part));
  }
  let seen = '';
  child.stdout.on('data', (part) => {
    const lines = (seen + part).split('\n');
    seen = lines.pop();
    for (const line of lines) {
      const [, role, email, password] = PERSON.exec(line) ?? [];
      if (role) people[role] = { email, password };
    }
  });
  /** Returns the end of the output, without passwords. */
  const tail = () =>
    text.split('\n').filter((line) => !PERSON.test(line)).slice(-15).join('\n');

  running = async () => {
    running = null;
    const began = Date.now();
    child.kill('SIGTERM');
    const code = await Promise.race([ended, sleep(STOP_SECONDS * 1000, 'late', { ref: false })]);
    if (code === 'late') child.kill('SIGKILL');
    await rm(folder, { recursive: true, force: true });
    const late = code === 'late' && `still running after ${STOP_SECONDS} s`;
    if (code !== 0) throw new Error(`SIGTERM: ${late || `ended with ${code}`}\n${tail()}`);
    return `SIGTERM, exit 0 after ${((Date.now() - began) / 1000).toFixed(1)} s`;
  };

  const deadline = Date.now() + START_SECONDS * 1000;
  const alive = () => {
    if (end === null && Date.now() < deadline) return;
    const lacking = PEOPLE.filter((role) => !people[role]);
    const state = lacking.length > 0 ? `without a password for ${lacking.join(', ')}` : 'not ready';
    throw new Error(`up --demo: ${end ?? `${state} after ${START_SECONDS} s`}\n${tail()}`);
  };
  try {
    while (!text.includes(listen) || !PEOPLE.every((role) => people[role])) {
      alive();
      await sleep(100);
    }
    await ready(`http://${health}/readyz`, alive);
  } catch (error) {
    await stop().catch(() => {});
    throw error;
  }
  return { url: `http://${listen}`, people };
}
