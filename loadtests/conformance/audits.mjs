import { auditServer } from 'graphql-http';

/** Number of audits in the pinned version; fewer results would mean that some did not run. */
const EXPECTED = 61;

/**
 * Runs every audit of the GraphQL over HTTP specification, including the optional ones.
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
