// The session against a server made of a function: `npm test`.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

const memory = new Map();
globalThis.sessionStorage = globalThis.localStorage = {
  getItem: (key) => memory.get(key) ?? null,
  setItem: (key, value) => memory.set(key, value),
  removeItem: (key) => memory.delete(key),
  get length() {
    return memory.size;
  },
  key: (index) => [...memory.keys()][index],
};
const { fetcher, signOut } = await import('../src/fetcher.js');
const { session } = await import('../src/session.js');
const { createStorage } = await import('../src/storage.js');
const { tabs } = await import('../src/tabs.js');

const refused = { errors: [{ message: 'no', extensions: { code: 'UNAUTHENTICATED' } }] };
const tokens = (n) => ({ accessToken: `access${n}`, refreshToken: `refresh${n}` });
const viewer = { query: '{ viewer { permissions } }' };
/** What was sent: [authorization, what]. */
let sent;
/** The access token the server takes, and the refresh token; each renewal moves both on by one. */
let valid;

beforeEach(() => {
  sent = [];
  valid = 1;
  memory.clear();
  session.forget();
  globalThis.fetch = async (url, { headers, body }) => {
    const { query, variables, operationName } = JSON.parse(body);
    const what = /refreshSession|login|logout|viewer/.exec(query)[0];
    sent.push([headers.authorization ?? headers.Authorization ?? null, what, ...(operationName ? [operationName] : [])]);
    await new Promise((resume) => setTimeout(resume, 5));
    const answer = () => {
      if (what === 'login') return variables.password === 'right' ? { data: { login: { tokens: tokens(valid) } } } : refused;
      if (what === 'refreshSession') return variables.refreshToken === `refresh${valid}` ? { data: { refreshSession: tokens(++valid) } } : refused;
      if (!headers.authorization) return { data: { viewer: null } };
      return headers.authorization === `Bearer access${valid}` ? { data: { viewer: {} } } : refused;
    };
    return new Response(JSON.stringify(answer()));
  };
});

const login = (password) =>
  fetcher({ query: 'mutation($password: String!) { login(email: "a", password: $password) { tokens { accessToken } } }', variables: { password } });

test('a sign-in is remembered and sent', async () => {
  await login('right');
  assert.deepEqual(await fetcher(viewer), { data: { viewer: {} } });
  assert.deepEqual(sent.at(-1), ['Bearer access1', 'viewer']);
});

test('an expired session is renewed once for requests at the same time', async () => {
  session.learn({ data: { login: { tokens: tokens(1) } } });
  session.learn({ data: { anyAlias: { ...tokens(1), accessToken: 'old' } } });
  const results = await Promise.all([fetcher(viewer), fetcher(viewer), fetcher(viewer)]);
  assert.ok(results.every(({ data }) => data.viewer));
  assert.equal(sent.filter(([, what]) => what === 'refreshSession').length, 1);
  assert.deepEqual(session.get(), tokens(2));
});

test('a session that cannot be renewed ends, and the request goes out as nobody', async () => {
  session.learn({ data: { refreshSession: tokens(0) } });
  assert.deepEqual(await fetcher(viewer), { data: { viewer: null } });
  assert.equal(session.get(), null);
  assert.deepEqual(sent.map(([, what]) => what), ['viewer', 'refreshSession', 'viewer']);
});

test('a wrong password is sent once and leaves the session', async () => {
  await login('right');
  assert.deepEqual(await login('wrong'), refused);
  assert.equal(sent.length, 2);
  assert.deepEqual(session.get(), tokens(1));
});

test('the headers pane wins', async () => {
  await login('right');
  assert.deepEqual(await fetcher(viewer, { headers: { Authorization: 'Bearer mine' } }), { data: { viewer: null } });
  assert.deepEqual(sent.at(-1), ['Bearer mine', 'viewer']);
});

test('the name of another tab\'s operation is not sent', async () => {
  await fetcher({ query: 'query Now { viewer { permissions } }', operationName: 'Before' });
  assert.deepEqual(sent.at(-1), [null, 'viewer', 'Now']);
});

test('signing out forgets here and tells the server', async () => {
  await login('right');
  await signOut();
  assert.equal(session.get(), null);
  assert.deepEqual(sent.at(-1), ['Bearer access1', 'logout']);
});

test('no password reaches the storage', () => {
  const storage = createStorage();
  assert.equal(storage.getItem('graphiql:variables'), tabs[0].variables);
  const query = 'mutation { login(email: "a", password: "hunter2") { x } changePassword(current: """hunter2""", new: "hunter2") }';
  for (const variables of ['{"email":"a","password":"hun\\"ter2"}', '{"password": "hunter2', '{"tabs":1,"new":"hunter2"}']) {
    storage.setItem('graphiql:query', query);
    storage.setItem('graphiql:variables', variables);
    storage.setItem('graphiql:tabState', JSON.stringify({ activeTabIndex: 0, tabs: [{ query, variables }] }));
    storage.setItem('graphiql:queries', JSON.stringify({ queries: [{ query, variables }] }));
    assert.doesNotMatch([...memory.values()].join(), /hun|ter2/);
  }
});
