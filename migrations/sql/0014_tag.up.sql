-- A word that people group assets by.
CREATE TABLE tag (
    org_id     uuid        NOT NULL CONSTRAINT tag_org_id_fkey REFERENCES organization,
    id         uuid        NOT NULL,
    name       text        NOT NULL CONSTRAINT tag_name_check CHECK (length(name) BETWEEN 1 AND 64),
    -- The name in lower case, by Unicode's rules whatever the database's locale: "Prod" and "prod" are one tag.
    folded     text        NOT NULL,
    color      text        NOT NULL CONSTRAINT tag_color_check CHECK (color ~ '^#[0-9a-f]{6}$'),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT tag_name_key UNIQUE (org_id, folded)
);

CREATE TABLE asset_tag (
    org_id   uuid NOT NULL,
    asset_id uuid NOT NULL,
    tag_id   uuid NOT NULL,
    PRIMARY KEY (org_id, asset_id, tag_id),
    CONSTRAINT asset_tag_asset_fkey FOREIGN KEY (org_id, asset_id) REFERENCES asset (org_id, id) ON DELETE CASCADE,
    CONSTRAINT asset_tag_tag_fkey FOREIGN KEY (org_id, tag_id) REFERENCES tag (org_id, id) ON DELETE CASCADE
);
CREATE INDEX asset_tag_tag_idx ON asset_tag (org_id, tag_id, asset_id);

ALTER TABLE tag ENABLE ROW LEVEL SECURITY;
ALTER TABLE tag FORCE ROW LEVEL SECURITY;
CREATE POLICY tag_app ON tag TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON tag TO sentryops_app;

ALTER TABLE asset_tag ENABLE ROW LEVEL SECURITY;
ALTER TABLE asset_tag FORCE ROW LEVEL SECURITY;
CREATE POLICY asset_tag_app ON asset_tag TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON asset_tag TO sentryops_app;
