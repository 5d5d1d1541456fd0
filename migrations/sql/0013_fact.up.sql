-- Where each attribute's value comes from and since when it is known: {"os_name": ["IMPORTED", milliseconds]}. Beside the
-- values and not around them: rules and filters read the values alone.
ALTER TABLE asset ADD COLUMN sources jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT asset_sources_check CHECK (jsonb_typeof(sources) = 'object');
-- Until now people and programs wrote them over the API: that is what declared means. The owner sees no row of a tenant
-- table while the policies are forced on it, too.
ALTER TABLE asset NO FORCE ROW LEVEL SECURITY;
UPDATE asset SET sources = coalesce((
    SELECT jsonb_object_agg(key, jsonb_build_array('DECLARED', floor(extract(epoch FROM updated_at) * 1000)::bigint))
    FROM jsonb_object_keys(attributes) AS key), '{}')
WHERE attributes <> '{}';
ALTER TABLE asset FORCE ROW LEVEL SECURITY;
