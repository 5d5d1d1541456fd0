// The peer server: mercurius with JIT on fastify. It executes the same documents on the database that sentryops has
// filled.
//
// It does the same work per request as sentryops, and no more: it verifies the bearer on every request, reads the
// session
// from Postgres, reads lists from the same tables, and loads owners in batches. The SQL is that of sentryops, in named
// prepared statements.
//   node server.mjs roles   sets role and organization in each transaction: the same statements as sentryops
//   node server.mjs plain   uses no transactions and no row security, as a superuser: the minimum of statements
// Prints one JSON line, {"address", "token"}, once it listens. It has no document limits, request ids or metrics.
import { randomBytes, randomUUID } from 'node:crypto';
import { createSigner, createVerifier } from 'fast-jwt';
import fastify from 'fastify';
import mercurius from 'mercurius';
import pg from 'pg';

const [mode] = process.argv.slice(2);
if (!['roles', 'plain'].includes(mode)) throw new Error('usage: node server.mjs roles|plain');
const { DATABASE_URL, POOL_SIZE } = process.env;

// The columns that sentryops reads for an asset. Sorting and paging happen in the database.
const COLUMNS = `id, code, external_id, name, type, lifecycle_state, environment, location, description,
  owner_id, attributes, custom_fields, created_at, updated_at`;
const SESSION = `SELECT session.last_seen_at, membership.permissions AS granted,
    ARRAY(SELECT role.key FROM membership_role AS held
          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
          WHERE held.org_id = session.org_id AND held.user_id = session.user_id
          ORDER BY role.builtin DESC, role.id) AS roles,
    ARRAY(SELECT unnest(role.permissions) FROM membership_role AS held
          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
          WHERE held.org_id = session.org_id AND held.user_id = session.user_id
            AND NOT role.builtin) AS custom
  FROM session
  JOIN membership ON membership.org_id = session.org_id AND membership.user_id = session.user_id
  WHERE session.id = $1 AND session.org_id = $2 AND session.user_id = $3
    AND session.ended_at IS NULL AND session.expires_at > $4 AND membership.active`;
const OWNERS = `SELECT "user".id, "user".email, "user".name, membership.active, "user".mfa_enabled,
    "user".created_at, "user".last_seen_at
  FROM membership JOIN "user" ON "user".id = membership.user_id
  WHERE membership.org_id = $1 AND membership.user_id = ANY($2)`;

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL_SIZE ?? 16) });

/** Statements of one request in one organization, or of an authentication without one. */
class Reading {
  static async begin(role, org, access) {
    if (mode === 'plain') return new Reading(pool);
    const client = await pool.connect();
    try {
      await client.query(`BEGIN ${access}; SET LOCAL ROLE ${role}; SET LOCAL app.org_id = '${org}'`);
    } catch (error) {
      client.release(true);
      throw error;
    }
    return new Reading(client);
  }

  constructor(client) {
    this.client = client;
  }

  async rows(name, text, values) {
    return (await this.client.query({ name, text, values })).rows;
  }

  async end() {
    if (this.client === pool) return;
    try {
      await this.client.query('COMMIT');
      this.client.release();
    } catch (error) {
      this.client.release(true);
      throw error;
    }
  }
}

const key = randomBytes(32);
const told = { algorithm: 'HS256', iss: 'sentryops', aud: 'sentryops-api' };
const verify = createVerifier({
  key, cache: false, algorithms: ['HS256'], allowedIss: told.iss, allowedAud: told.aud, clockTolerance: 5000,
  requiredClaims: ['exp', 'nbf', 'aud', 'iss', 'sub'],
});

class Context {
  constructor(claims) {
    this.claims = claims;
  }

  /** Authenticates the request by the current row of its session. */
  async authenticate() {
    const { sid, org, sub } = this.claims;
    const tx = await Reading.begin('sentryops_auth', '', 'READ WRITE');
    const [session] = await tx.rows('session', SESSION, [sid, org, sub, new Date()]);
    await tx.end();
    if (!session) throw new Error('the session has ended');
    this.roles = session.roles;
  }

  /** Returns the transaction that all reads of a request share; the first read begins it. */
  read() {
    if (!this.claims) throw new Error('the request has no bearer token; sign in first');
    if (!this.roles.includes('admin')) throw new Error('the session lacks the permission ASSET_READ');
    return (this.reading ??= Reading.begin('sentryops_app', this.claims.org, 'READ ONLY'));
  }

  async end() {
    await (await this.reading)?.end();
  }
}

const schema = `
  type Query { viewer: Viewer assets(filter: AssetFilter, first: Int): AssetConnection! }
  type Viewer { organization: Organization! }
  type Organization { id: ID! name: String! }
  type User { id: ID! name: String! }
  enum AssetType { HOST NETWORK_DEVICE SERVICE SOFTWARE_LICENSE CLOUD_RESOURCE }
  enum LifecycleState { PROVISIONING ACTIVE MAINTENANCE RETIRED DISPOSED }
  enum Environment { PROD STAGING DEV }
  input AssetFilter { text: String }
  type AssetConnection { totalCount: Int nodes: [Asset!]! }
  type Asset {
    id: ID! code: String! name: String! type: AssetType! lifecycleState: LifecycleState! environment: Environment!
    owner: User
  }`;

const resolvers = {
  Query: {
    viewer: (_, __, context) => (context.claims ? {} : null),
    async assets(_, { filter, first }, context) {
      const tx = await context.read();
      const { org } = context.claims;
      const size = Math.min(first ?? 50, 100);
      const text = filter?.text;
      const where = text ? 'org_id = $1 AND (name ILIKE $2 OR code ILIKE $2)' : 'org_id = $1';
      const values = text ? [org, `%${text.replace(/[\\%_]/g, '\\$&')}%`] : [org];
      const rows = await tx.rows(
        `assets ${Boolean(text)} ${size}`,
        `SELECT ${COLUMNS} FROM asset WHERE ${where} ORDER BY id DESC LIMIT ${size + 1}`,
        values,
      );
      return { nodes: rows.slice(0, size), tx, where, values };
    },
  },
  Viewer: {
    async organization(_, __, context) {
      const tx = await context.read();
      const sql = 'SELECT id, slug, name, is_demo, created_at FROM organization WHERE id = $1';
      return (await tx.rows('organization', sql, [context.claims.org]))[0];
    },
  },
  AssetConnection: {
    async totalCount({ tx, where, values }) {
      const sql = `SELECT count(*) AS total FROM asset WHERE ${where}`;
      return Number((await tx.rows(`total ${values.length}`, sql, values))[0].total);
    },
  },
  Asset: { lifecycleState: (asset) => asset.lifecycle_state },
};

const loaders = {
  Asset: {
    owner: {
      async loader(queries, context) {
        const ids = [...new Set(queries.map(({ obj }) => obj.owner_id).filter(Boolean))];
        const tx = await context.read();
        const owners = await tx.rows('owners', OWNERS, [context.claims.org, ids]);
        const byId = new Map(owners.map((owner) => [owner.id, owner]));
        return queries.map(({ obj }) => byId.get(obj.owner_id) ?? null);
      },
      // The cache is off, because it would serialize each asset to JSON as a key. Only batching matters here.
      opts: { cache: false },
    },
  },
};

const app = fastify({ forceCloseConnections: true });
app.register(mercurius, {
  schema,
  resolvers,
  loaders,
  jit: 1,
  graphiql: false,
  async context(request) {
    const header = request.headers.authorization;
    if (!header) return new Context(null);
    const context = new Context(verify(header.slice('Bearer '.length)));
    await context.authenticate();
    return context;
  },
});
await app.ready();
app.graphql.addHook('onResolution', (_, context) => context.end());

/** Returns a token for the newest session, which is that of the load scenario. */
async function token() {
  const tx = await Reading.begin('sentryops_auth', '', 'READ WRITE');
  const sql = 'SELECT id, org_id, user_id FROM session WHERE ended_at IS NULL ORDER BY created_at DESC LIMIT 1';
  const [session] = await tx.rows('newest', sql, []);
  await tx.end();
  const sign = createSigner({ key, ...told, expiresIn: 3_600_000, notBefore: 0 });
  return sign({ sid: session.id, org: session.org_id, sub: session.user_id, jti: randomUUID() });
}

const address = await app.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({ address: address.replace('http://', ''), token: await token() }));
process.once('SIGTERM', async () => {
  await app.close();
  process.exit();
});
