// npm graphql-ws: all operations over one socket, after the sign-in over an anonymous socket.
import { createClient } from 'graphql-ws';
import { print } from 'graphql';
import type { Client } from './story.ts';

export function overSockets(url: string): Client {
  const open = (token?: string) =>
    createClient({
      url: url.replace('http', 'ws'),
      retryAttempts: 0,
      connectionParams: token ? { Authorization: `Bearer ${token}` } : {},
    });
  const sockets = new Map<string | undefined, ReturnType<typeof open>>();
  const socket = (token?: string) => {
    const known = sockets.get(token) ?? open(token);
    sockets.set(token, known);
    return known;
  };
  async function* watch(document: Parameters<typeof print>[0], variables: Record<string, unknown>, token?: string) {
    const request = { query: print(document), variables };
    for await (const { data, errors } of socket(token).iterate<Record<string, unknown>>(request)) {
      if (errors || !data) throw new Error(JSON.stringify(errors));
      yield data as never;
    }
  }
  return {
    async ask(document, variables, token) {
      for await (const result of watch(document, variables, token)) return result;
      throw new Error('the operation completed without a result');
    },
    watch,
  };
}
