// What a web frontend does, whatever its client: sign in, read, change, watch a run from its start to its end.
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

/** A client, as the story needs it. */
export interface Client {
  /** A query or mutation, with the token where there is one. */
  ask<Result, Variables extends Record<string, unknown>>(
    document: TypedDocumentNode<Result, Variables>,
    variables: Variables,
    token?: string,
  ): Promise<Result>;
  /** A subscription: what comes, until the server says that it is complete. */
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
    if (complianceRun.id !== run.id) throw new Error('another run');
    // Where no worker takes it, somebody ends it; where one does, that may come too late.
    if (seen.length === 0 && !ENDED.includes(complianceRun.state)) {
      void client.ask(CancelRunDocument, { id: run.id }, token).catch(() => {});
    }
    seen.push(complianceRun);
  }
  const last = seen.at(-1);
  if (!last || !ENDED.includes(last.state)) throw new Error(`the run was left ${last?.state}`);
  return seen.map(({ state }) => state).join(' → ');
}
