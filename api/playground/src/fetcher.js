import { Kind, OperationTypeNode, getOperationAST, parse } from 'graphql';
import { session } from './session.js';
import { events } from './events.js';

const ENDPOINT = '/graphql';
const STREAM = '/graphql/stream';
/** Root fields that create or end a session: they must not cause a renewal of an expired one. */
const SESSION_FIELDS = new Set(['login', 'refreshSession', 'logout']);
const REFRESH = `mutation RefreshSession($refreshToken: String!) {
  refreshSession(refreshToken: $refreshToken) { accessToken refreshToken accessExpiresAt }
}`;

/**
 * @param {string} url
 * @param {object} params query, variables, operationName
 * @param {Record<string, string>} headers
 * @param {AbortSignal} [signal]
 */
function post(url, params, headers, signal) {
  return fetch(url, {
    method: 'POST',
    headers: { accept: 'application/json', 'content-type': 'application/json', ...headers },
    body: JSON.stringify(params),
    credentials: 'omit', // the bearer is the only credential
    redirect: 'error',
    signal,
  });
}

/** @param {Response} response */
async function json(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${response.status}, not JSON: ${text.slice(0, 300) || '(empty)'}`);
  }
}

const unauthenticated = (result) =>
  Boolean(result?.errors?.some((error) => error.extensions?.code === 'UNAUTHENTICATED'));

/** @type {Promise<void> | null} */
let refreshing = null;

/** Renews the session, or ends it if the server rejects it. Concurrent callers share one request. */
function refresh() {
  refreshing ??= (async () => {
    const refreshToken = session.get()?.refreshToken;
    if (!refreshToken) return session.forget();
    const result = await json(await post(ENDPOINT, { query: REFRESH, variables: { refreshToken } }, {}));
    if (result.data?.refreshSession) session.learn(result);
    else if (unauthenticated(result)) session.forget();
  })().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

/**
 * Sends with the session's token unless the caller sets an Authorization header. If the token is
 * rejected, renews it and sends the request once more: with the new token, or anonymously.
 *
 * @template {{result?: object}} T
 * @param {Record<string, string>} own headers of the headers pane
 * @param {boolean} renewable
 * @param {(headers: Record<string, string>) => Promise<T>} send
 * @returns {Promise<T>}
 */
async function authorized(own, renewable, send) {
  if (Object.keys(own).some((name) => name.toLowerCase() === 'authorization')) return send(own);
  const attempt = () => {
    const token = session.get()?.accessToken;
    return send(token ? { authorization: `Bearer ${token}`, ...own } : own);
  };
  const before = session.get()?.accessToken;
  const first = await attempt();
  if (!before || !renewable || !unauthenticated(first.result)) return first;
  // Another request may have renewed it meanwhile.
  if (session.get()?.accessToken === before) await refresh();
  return session.get()?.accessToken === before ? first : attempt();
}

/**
 * Returns the operation to run. Just after a change of tabs GraphiQL still passes the operation name
 * of the previous tab, so a document's only operation is used whatever the name.
 *
 * @param {{query: string, operationName?: string}} params
 */
function operation({ query, operationName }) {
  try {
    const document = parse(query);
    const all = document.definitions.filter(({ kind }) => kind === Kind.OPERATION_DEFINITION);
    return all.length === 1 ? all[0] : getOperationAST(document, operationName ?? null);
  } catch {
    return null; // the server reports syntax errors
  }
}

/** Runs a subscription over server-sent events, as an observable that GraphiQL's stop button can end. */
const subscribe = (params, headers) => ({
  subscribe({ next, error, complete }) {
    const abort = new AbortController();
    (async () => {
      const { response, result } = await authorized(headers, true, async (all) => {
        const accept = { ...all, accept: 'text/event-stream' };
        const response = await post(STREAM, params, accept, abort.signal);
        const streams = response.headers.get('content-type')?.startsWith('text/event-stream');
        return streams ? { response } : { result: await json(response) };
      });
      if (result) return next(result);
      for await (const { event, data } of events(response.body)) {
        if (event === 'next') next(JSON.parse(data));
        if (event === 'complete') return;
      }
    })()
      .then(complete)
      .catch((cause) => abort.signal.aborted || error(cause))
      .finally(() => abort.abort());
    return { unsubscribe: () => abort.abort() };
  },
});

/** GraphiQL's fetcher: queries, mutations and introspection over HTTP, subscriptions over SSE. */
export async function fetcher(request, { headers } = {}) {
  const own = headers ?? {};
  const definition = operation(request);
  const params = definition ? { ...request, operationName: definition.name?.value } : request;
  if (definition?.operation === OperationTypeNode.SUBSCRIPTION) return subscribe(params, own);
  const renewable = !definition?.selectionSet.selections.some(
    (selection) => selection.kind === Kind.FIELD && SESSION_FIELDS.has(selection.name.value),
  );
  const { result } = await authorized(own, renewable, async (all) => ({
    result: await json(await post(ENDPOINT, params, all)),
  }));
  session.learn(result);
  return result;
}

/** Ends the session in the browser in any case, and on the server if it can be reached. */
export async function signOut() {
  const token = session.get()?.accessToken;
  session.forget();
  if (!token) return;
  await post(ENDPOINT, { query: 'mutation { logout }' }, { authorization: `Bearer ${token}` }).catch(() => {});
}
