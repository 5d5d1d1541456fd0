-- No key manages users, roles, keys or the organization: whoever loses access could get it back through a key. Keys that
-- were made with such a permission lose it here, with an entry in the audit trail. `sentryops doctor` lists them.
ALTER TABLE api_key ADD COLUMN withdrawn text[] NOT NULL DEFAULT '{}';
ALTER TABLE api_key NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entry NO FORCE ROW LEVEL SECURITY;

UPDATE api_key SET
    withdrawn = ARRAY(SELECT name FROM unnest(permissions) WITH ORDINALITY AS held (name, place)
                      WHERE name IN ('USER_MANAGE', 'ROLE_MANAGE', 'API_KEY_MANAGE', 'ORGANIZATION_MANAGE') ORDER BY place),
    permissions = ARRAY(SELECT name FROM unnest(permissions) WITH ORDINALITY AS held (name, place)
                        WHERE name NOT IN ('USER_MANAGE', 'ROLE_MANAGE', 'API_KEY_MANAGE', 'ORGANIZATION_MANAGE') ORDER BY place)
WHERE permissions && ARRAY['USER_MANAGE', 'ROLE_MANAGE', 'API_KEY_MANAGE', 'ORGANIZATION_MANAGE'];

-- The ids are UUIDs of version 7, so that the entries sort as the newest.
INSERT INTO audit_entry (org_id, id, at, actor_kind, action, entity_type, entity_id, changed_paths, before, after)
SELECT org_id,
       (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7'
            || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
       now(), 'system', 'api_key.permissions_reduced', 'api_key', id, ARRAY['permissions'],
       jsonb_build_object('permissions', permissions || withdrawn), jsonb_build_object('permissions', permissions)
FROM api_key WHERE withdrawn <> '{}';

ALTER TABLE api_key FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;
ALTER TABLE api_key ADD CONSTRAINT api_key_permissions_check CHECK
    (NOT permissions && ARRAY['USER_MANAGE', 'ROLE_MANAGE', 'API_KEY_MANAGE', 'ORGANIZATION_MANAGE']);
