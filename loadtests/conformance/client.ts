// TypeScript client code against the generated documents. It is compiled and never run. Compilation
// fails if the API loses a field, or if the generated types are looser than the API.
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { AssetsPageDocument, CreateAssetDocument, LoginDocument, ViewerDocument } from './generated/documents.ts';

declare function request<Result, Variables>(
  document: TypedDocumentNode<Result, Variables>,
  variables: Variables,
  accessToken?: string,
): Promise<Result>;

export async function signIn(email: string, password: string): Promise<string> {
  const { login } = await request(LoginDocument, { email, password });
  // Only one of the two fields is set, so both must be nullable.
  // @ts-expect-error tokens is nullable
  login.tokens.accessToken;
  if (!login.tokens) throw new Error(login.mfaChallenge ?? 'no tokens');
  return login.tokens.accessToken;
}

export async function whoAmI(token: string): Promise<string> {
  const { viewer } = await request(ViewerDocument, {}, token);
  if (!viewer) return 'nobody';
  const name = viewer.actor.__typename === 'User' ? viewer.actor.email : viewer.actor.__typename;
  const roles: string[] = viewer.roles.map(({ key }) => key);
  const mayWrite: boolean = viewer.permissions.includes('ASSET_WRITE');
  // @ts-expect-error a permission that does not exist
  viewer.permissions.includes('ASSET_PAINT');
  return `${name}, ${roles.join()} of ${viewer.organization.slug}${mayWrite ? ', may write' : ''}`;
}

export async function* assets(token: string): AsyncGenerator<{ id: string; name: string }> {
  let after: string | null | undefined;
  do {
    const variables = { first: 100, after, filter: { type: ['HOST' as const], text: 'db' } };
    const page = await request(AssetsPageDocument, variables, token);
    for (const { node } of page.assets.edges) yield { id: node.id, name: node.name };
    after = page.assets.pageInfo.hasNextPage ? page.assets.pageInfo.endCursor : null;
  } while (after);
}

export async function create(token: string): Promise<string> {
  const input = { name: 'billing-db-1', type: 'HOST' as const, attributes: { backup_enabled: true } };
  const { createAsset } = await request(CreateAssetDocument, { input }, token);
  // @ts-expect-error not selected
  createAsset.owner;
  // @ts-expect-error the name is required
  await request(CreateAssetDocument, { input: { type: 'HOST' } }, token);
  return createAsset.code;
}
