// Story of a web frontend, the same for every client: sign in, read, change, watch a run from start to end.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import {
  CancelRunDocument,
  LoginDocument,
  StartRunDocument,
  ViewerDocument,
  WatchRunDocument,
  type WatchRunSubscription,
} from '../generated/documents.ts';

export type Person = { email: string; password: string };

/** Interface of a client that the story needs. */
export interface Client {
  /** Executes a query or mutation, with the token if given. */
  ask<Result, Variables extends Record<string, unknown>>(
    document: TypedDocumentNode<Result, Variables>,
    variables: Variables,
    token?: string,
  ): Promise<Result>;
  /** Subscribes, and yields results until the server completes the operation. */
  watch<Result, Variables extends Record<string, unknown>>(
    document: TypedDocumentNode<Result, Variables>,
    variables: Variables,
    token: string,
  ): AsyncIterable<Result>;
}

const ENDED = ['SUCCEEDED', 'FAILED', 'CANCELLED'];

export async function story(client: Client, person: Person): Promise<string> {
  const { login } = await client.ask(LoginDocument, person);
  const token = login.tokens?.accessToken;
  if (!token) throw new Error('no tokens');
  const { viewer } = await client.ask(ViewerDocument, {}, token);
  if (viewer?.actor?.__typename !== 'User') throw new Error(`signed in as ${viewer?.actor?.__typename}`);
  const run = (await client.ask(StartRunDocument, {}, token)).startComplianceRun;

  const seen: WatchRunSubscription['complianceRun'][] = [];
  for await (const { complianceRun } of client.watch(WatchRunDocument, { id: run.id }, token)) {
    if (complianceRun.id !== run.id) throw new Error('received an event of another run');
    // Without a worker, this cancellation ends the run. With a worker, it may come too late, which is fine.
    if (seen.length === 0 && !ENDED.includes(complianceRun.state)) {
      void client.ask(CancelRunDocument, { id: run.id }, token).catch(() => {});
    }
    seen.push(complianceRun);
  }
  const last = seen.at(-1);
  if (!last || !ENDED.includes(last.state)) throw new Error(`the run did not end; its last state is ${last?.state}`);
  return seen.map(({ state }) => state).join(' → ');
}
