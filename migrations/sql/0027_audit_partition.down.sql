DROP FUNCTION audit_append(uuid, inet, text, text[], uuid[], text[], text[], uuid[], text[], jsonb[], jsonb[]);
DROP FUNCTION audit_rotate(integer);
DROP FUNCTION audit_create_month(timestamptz);
DROP FUNCTION audit_first_id(timestamptz);

ALTER TABLE audit_entry RENAME TO audit_entry_parted;
ALTER INDEX audit_entry_pkey RENAME TO audit_entry_parted_pkey;
ALTER INDEX audit_entry_entity_idx RENAME TO audit_entry_parted_entity_idx;
ALTER INDEX audit_entry_actor_idx RENAME TO audit_entry_parted_actor_idx;

CREATE TABLE audit_entry (
    org_id        uuid        NOT NULL CONSTRAINT audit_entry_org_id_fkey REFERENCES organization,
    id            uuid        NOT NULL,
    at            timestamptz NOT NULL,
    actor_kind    text        NOT NULL CONSTRAINT audit_entry_actor_kind_check CHECK (actor_kind IN ('user', 'api_key', 'system')),
    actor_id      uuid,
    action        text        NOT NULL,
    entity_type   text        NOT NULL,
    entity_id     uuid        NOT NULL,
    changed_paths text[]      NOT NULL,
    before        jsonb,
    after         jsonb,
    source_ip     inet,
    request_id    text,
    PRIMARY KEY (org_id, id),
    CONSTRAINT audit_entry_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
);
ALTER TABLE audit_entry_parted NO FORCE ROW LEVEL SECURITY;
INSERT INTO audit_entry SELECT * FROM audit_entry_parted;
DROP TABLE audit_entry_parted;
CREATE INDEX audit_entry_entity_idx ON audit_entry (org_id, entity_type, entity_id, id DESC);
CREATE INDEX audit_entry_actor_idx ON audit_entry (org_id, actor_id, id DESC);

ALTER TABLE audit_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_entry_app ON audit_entry TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY audit_entry_auth ON audit_entry FOR INSERT TO sentryops_auth WITH CHECK (true);
GRANT SELECT, INSERT ON audit_entry TO sentryops_app;
GRANT INSERT ON audit_entry TO sentryops_auth;
