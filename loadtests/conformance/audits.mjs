import { auditServer } from 'graphql-http';

/** How many the pinned version has: fewer would mean that some were not asked. */
const EXPECTED = 61;

/**
 * Every audit of the GraphQL over HTTP specification, the optional ones too.
 *
 * @param {{url: string}} options
 * @returns {Promise<string>}
 */
export async function audits({ url }) {
  const results = await auditServer({ url: `${url}/graphql`, fetchFn: fetch });
  const failed = results.filter(({ status }) => status !== 'ok');
  const summary = `${results.length - failed.length} of ${EXPECTED} ok`;
  if (failed.length === 0 && results.length === EXPECTED) return summary;
  const lines = failed.map(({ status, id, name, reason }) => `  ${status} ${id} ${name}\n    ${reason}`);
  throw new Error([summary, ...lines].join('\n'));
}
