-- The organization is asked for once a statement, and not for each of a hundred thousand rows: a run reads all of them.
ALTER POLICY asset_app ON asset
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid))
    WITH CHECK (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
