-- What an asset needs: the source needs the target. Asked from both ends, so it is indexed from both; a walk reads the
-- indexes only. It goes with either asset.
CREATE TABLE dependency (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL,
    source_id   uuid        NOT NULL,
    target_id   uuid        NOT NULL,
    kind        text        CONSTRAINT dependency_kind_check CHECK (length(kind) BETWEEN 1 AND 50),
    criticality text        CONSTRAINT dependency_criticality_check CHECK (criticality IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')),
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT dependency_source_target_key UNIQUE (org_id, source_id, target_id),
    CONSTRAINT dependency_source_fkey FOREIGN KEY (org_id, source_id) REFERENCES asset ON DELETE CASCADE,
    CONSTRAINT dependency_target_fkey FOREIGN KEY (org_id, target_id) REFERENCES asset ON DELETE CASCADE,
    CONSTRAINT dependency_self_check CHECK (source_id <> target_id)
);
CREATE INDEX dependency_target_idx ON dependency (org_id, target_id, source_id);

ALTER TABLE dependency ENABLE ROW LEVEL SECURITY;
ALTER TABLE dependency FORCE ROW LEVEL SECURITY;
CREATE POLICY dependency_app ON dependency TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON dependency TO sentryops_app;

-- How many services a failure reaches is asked of tens of thousands of assets at once; their rows are too wide for that.
CREATE INDEX asset_service_idx ON asset (org_id, id) WHERE type = 'SERVICE';
