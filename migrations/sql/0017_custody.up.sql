-- Who holds an asset, from check-out to check-in; open while it is not checked in, and at most one of an asset is.
CREATE TABLE custody (
    org_id               uuid        NOT NULL,
    id                   uuid        NOT NULL,
    asset_id             uuid        NOT NULL,
    holder_id            uuid        NOT NULL,
    notes                text        CONSTRAINT custody_notes_check CHECK (length(notes) BETWEEN 1 AND 4096),
    checked_out_at       timestamptz NOT NULL,
    checked_out_by_kind  text        NOT NULL CONSTRAINT custody_checked_out_by_kind_check CHECK (checked_out_by_kind IN
                             ('user', 'api_key', 'system')),
    checked_out_by_id    uuid,
    return_notes         text        CONSTRAINT custody_return_notes_check CHECK (length(return_notes) BETWEEN 1 AND 4096),
    checked_in_at        timestamptz,
    checked_in_by_kind   text        CONSTRAINT custody_checked_in_by_kind_check CHECK (checked_in_by_kind IN
                             ('user', 'api_key', 'system')),
    checked_in_by_id     uuid,
    PRIMARY KEY (org_id, id),
    CONSTRAINT custody_asset_fkey FOREIGN KEY (org_id, asset_id) REFERENCES asset ON DELETE CASCADE,
    CONSTRAINT custody_holder_fkey FOREIGN KEY (org_id, holder_id) REFERENCES membership (org_id, user_id),
    CONSTRAINT custody_checked_out_by_check CHECK ((checked_out_by_kind = 'system') = (checked_out_by_id IS NULL)),
    CONSTRAINT custody_checked_in_check CHECK ((checked_in_at IS NULL) = (checked_in_by_kind IS NULL)),
    CONSTRAINT custody_checked_in_by_check CHECK
        ((coalesce(checked_in_by_kind, 'system') = 'system') = (checked_in_by_id IS NULL)),
    CONSTRAINT custody_return_check CHECK (checked_in_at IS NOT NULL OR return_notes IS NULL)
);
CREATE UNIQUE INDEX custody_open_idx ON custody (org_id, asset_id) WHERE checked_in_at IS NULL;
CREATE INDEX custody_asset_idx ON custody (org_id, asset_id, id DESC);
CREATE INDEX custody_holder_idx ON custody (org_id, holder_id);

ALTER TABLE custody ENABLE ROW LEVEL SECURITY;
ALTER TABLE custody FORCE ROW LEVEL SECURITY;
CREATE POLICY custody_app ON custody TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON custody TO sentryops_app;
