-- Something we operate. The owner is a member of the same organization: the composite key says so, because plain
-- foreign keys are not held by row security.
CREATE TABLE asset (
    org_id          uuid        NOT NULL CONSTRAINT asset_org_id_fkey REFERENCES organization,
    id              uuid        NOT NULL,
    code            text        NOT NULL CONSTRAINT asset_code_check CHECK (length(code) BETWEEN 1 AND 16),
    external_id     text        CONSTRAINT asset_external_id_check CHECK (length(external_id) BETWEEN 1 AND 255),
    name            text        NOT NULL CONSTRAINT asset_name_check CHECK (length(name) BETWEEN 1 AND 255),
    type            text        NOT NULL CONSTRAINT asset_type_check CHECK (type IN
                        ('HOST', 'NETWORK_DEVICE', 'SERVICE', 'SOFTWARE_LICENSE', 'CLOUD_RESOURCE')),
    lifecycle_state text        NOT NULL CONSTRAINT asset_lifecycle_state_check CHECK (lifecycle_state IN
                        ('PROVISIONING', 'ACTIVE', 'MAINTENANCE', 'RETIRED', 'DISPOSED')),
    environment     text        NOT NULL CONSTRAINT asset_environment_check CHECK (environment IN ('PROD', 'STAGING', 'DEV')),
    location        text        CONSTRAINT asset_location_check CHECK (length(location) BETWEEN 1 AND 255),
    description     text        CONSTRAINT asset_description_check CHECK (length(description) BETWEEN 1 AND 4096),
    owner_id        uuid,
    attributes      jsonb       NOT NULL DEFAULT '{}' CONSTRAINT asset_attributes_check CHECK (jsonb_typeof(attributes) = 'object'),
    custom_fields   jsonb       NOT NULL DEFAULT '{}' CONSTRAINT asset_custom_fields_check CHECK (jsonb_typeof(custom_fields) = 'object'),
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT asset_code_key UNIQUE (org_id, code),
    CONSTRAINT asset_external_id_key UNIQUE (org_id, external_id),
    CONSTRAINT asset_owner_fkey FOREIGN KEY (org_id, owner_id) REFERENCES membership (org_id, user_id)
);
CREATE INDEX asset_name_idx ON asset (org_id, name, id);
CREATE INDEX asset_updated_idx ON asset (org_id, updated_at, id);
CREATE INDEX asset_owner_idx ON asset (org_id, owner_id) WHERE owner_id IS NOT NULL;

ALTER TABLE asset ENABLE ROW LEVEL SECURITY;
ALTER TABLE asset FORCE ROW LEVEL SECURITY;
CREATE POLICY asset_app ON asset TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON asset TO sentryops_app;
