import { session } from './session.js';
import { tabs } from './tabs.js';

/** Prefix of GraphiQL's keys; GraphiQL reads no other keys. */
const PREFIX = 'graphiql:';

/**
 * Names of variables and arguments with values that are never written to localStorage. Without
 * this, GraphiQL would write every keystroke and the history of operations to disk.
 */
const SECRETS = 'password|current|new|accessToken|refreshToken|secret|token|value';
const IN_VARIABLES = new RegExp(`("(?:${SECRETS})"\\s*:\\s*")(?:[^"\\\\]|\\\\[^])*`, 'gi');
const IN_DOCUMENT = new RegExp(
  `(\\b(?:${SECRETS})\\s*:\\s*)(?:"""[^]*?(?:"""|$)|"(?:[^"\\\\\\n]|\\\\.)*"?)`,
  'gi',
);

/** @param {string} text a document or variables, perhaps half typed */
const scrub = (text) => text.replace(IN_VARIABLES, '$1').replace(IN_DOCUMENT, '$1""');

/** Entries that are JSON with documents and variables as strings; all others are plain text. */
const NESTED = new Set(['tabState', 'queries', 'favorites'].map((name) => PREFIX + name));

/** @param {string} key @param {string} text */
function scrubbed(key, text) {
  if (!NESTED.has(key)) return scrub(text);
  const inner = (_, value) => (typeof value === 'string' ? scrub(value) : value);
  return JSON.stringify(JSON.parse(text), inner);
}

/** Returns localStorage, or a store in memory if the browser blocks it. */
function backing() {
  try {
    localStorage.getItem(PREFIX);
    return localStorage;
  } catch {
    const map = new Map();
    return {
      getItem: (key) => map.get(key) ?? null,
      setItem: (key, value) => map.set(key, value),
      removeItem: (key) => map.delete(key),
      get length() {
        return map.size;
      },
      key: (index) => [...map.keys()][index] ?? null,
    };
  }
}

/** Creates the storage that is passed to GraphiQL. */
export function createStorage() {
  const store = backing();
  const keys = () =>
    Array.from({ length: store.length }, (_, index) => store.key(index)).filter((key) =>
      key.startsWith(PREFIX),
    );

  // GraphiQL opens default tabs without the variables of the first one, and finds the active tab
  // by these two entries. So they are set on a first visit.
  if (store.getItem(`${PREFIX}tabState`) === null) {
    store.setItem(`${PREFIX}query`, tabs[0].query);
    store.setItem(`${PREFIX}variables`, tabs[0].variables ?? '');
  }
  return {
    getItem: (key) => store.getItem(key),
    setItem: (key, value) => store.setItem(key, scrubbed(key, value)),
    removeItem: (key) => store.removeItem(key),
    clear() {
      keys().forEach((key) => store.removeItem(key));
      session.forget();
    },
    get length() {
      return keys().length;
    },
  };
}
