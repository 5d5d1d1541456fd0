/** @typedef {{accessToken: string, refreshToken?: string}} Tokens */

// sessionStorage outlives a reload and ends with the browser tab.
const KEY = 'sentryops:session';

/** @type {Tokens | null} */
let tokens = read();
const listeners = new Set();

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
  } catch {
    return null;
  }
}

/** @param {Tokens | null} next */
function write(next) {
  tokens = next;
  try {
    if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is not available: the session is kept in memory only.
  }
  for (const listener of listeners) listener();
}

export const session = {
  /** @returns {Tokens | null} */
  get: () => tokens,
  forget: () => write(null),
  /** @param {() => void} listener @returns {() => void} */
  subscribe(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
  /**
   * Stores the tokens from an answer to login, refreshSession or switchOrganization, under any
   * alias, and ends the session after a logout.
   *
   * @param {{data?: Record<string, any> | null}} result
   */
  learn(result) {
    for (const [key, value] of Object.entries(result?.data ?? {})) {
      const found = value?.tokens?.accessToken ? value.tokens : value;
      if (typeof found?.accessToken === 'string') {
        write({ accessToken: found.accessToken, refreshToken: found.refreshToken });
      } else if (key === 'logout' && value === true) {
        write(null);
      }
    }
  },
};
