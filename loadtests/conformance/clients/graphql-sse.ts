// npm graphql-sse, in its "distinct connections mode": every operation is a stream.
import { createClient } from 'graphql-sse';
import { print } from 'graphql';
import type { Client } from './story.ts';

export function overStreams(url: string): Client {
  async function* watch(document: Parameters<typeof print>[0], variables: Record<string, unknown>, token?: string) {
    const client = createClient({
      url: `${url}/stream`,
      retryAttempts: 0,
      headers: token ? { Authorization: `Bearer ${token}` } : {},
    });
    const request = { query: print(document), variables };
    for await (const { data, errors } of client.iterate<Record<string, unknown>>(request)) {
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
