// Apollo Client, set up as in its documentation: HTTP for queries and mutations, a socket for subscriptions.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { isSubscriptionOperation } from '@apollo/client/utilities';
import { OperationTypeNode, getOperationAST } from 'graphql';
import { createClient } from 'graphql-ws';
import type { Client } from './story.ts';

export function overApollo(url: string): Client {
  const made = new Map<string | undefined, ApolloClient>();
  const client = (token?: string) => {
    const authorization = token ? { Authorization: `Bearer ${token}` } : {};
    const socket = createClient({ url: url.replace('http', 'ws'), retryAttempts: 0, connectionParams: authorization });
    const link = ApolloLink.split(
      ({ query }) => isSubscriptionOperation(query),
      new GraphQLWsLink(socket),
      new HttpLink({ uri: url, headers: authorization as Record<string, string> }),
    );
    const known = made.get(token) ?? new ApolloClient({ link, cache: new InMemoryCache() });
    made.set(token, known);
    return known;
  };
  return {
    async ask(document, variables, token) {
      const isMutation = getOperationAST(document)?.operation === OperationTypeNode.MUTATION;
      const { data, error } = isMutation
        ? await client(token).mutate({ mutation: document, variables } as never)
        : await client(token).query({ query: document, variables } as never);
      if (error || !data) throw error ?? new Error('no data');
      return data as never;
    },
    async *watch(document, variables, token) {
      const results: unknown[] = [];
      let wake = () => {};
      let end: { error?: unknown } | null = null;
      const push = (step: () => void) => {
        step();
        wake();
      };
      client(token)
        .subscribe({ query: document, variables } as never)
        .subscribe({
          next: ({ data, error }) => push(() => (error ? (end = { error }) : results.push(data))),
          error: (error: unknown) => push(() => (end = { error })),
          complete: () => push(() => (end ??= {})),
        });
      for (;;) {
        if (results.length > 0) yield results.shift() as never;
        else if (end) {
          const { error } = end as { error?: unknown };
          if (error) throw error;
          return;
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    },
  };
}
