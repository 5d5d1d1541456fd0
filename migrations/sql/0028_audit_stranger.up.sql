-- Refusals that belong to no organization: sign-ins with an unknown e-mail, unknown refresh tokens and API keys. They are
-- counted per network of clients and second, so that a flood makes few rows.
CREATE TABLE audit_stranger (
    id         uuid        NOT NULL PRIMARY KEY,
    at         timestamptz NOT NULL,
    action     text        NOT NULL,
    details    jsonb       NOT NULL,
    source_ip  inet,
    request_id text
);
ALTER TABLE audit_stranger ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_stranger FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_stranger_fleet ON audit_stranger FOR SELECT TO sentryops_fleet USING (true);
-- For the functions below, which run as the owner.
CREATE POLICY audit_stranger_owner ON audit_stranger TO CURRENT_USER USING (true) WITH CHECK (true);
GRANT SELECT ON audit_stranger TO sentryops_fleet;

-- Appends a refusal, and sets its id and time.
CREATE FUNCTION audit_append_stranger(action text, details jsonb, source_ip inet, request_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    INSERT INTO public.audit_stranger (id, at, action, details, source_ip, request_id)
    SELECT (overlay(lpad(to_hex(floor(extract(epoch FROM written_at) * 1000 * 4096)::bigint), 15, '0') PLACING '7' FROM 13 FOR 0)
                || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid,
           written_at, $1, $2, $3, $4
    FROM clock_timestamp() AS written_at
$$;
REVOKE ALL ON FUNCTION audit_append_stranger(text, jsonb, inet, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_append_stranger(text, jsonb, inet, text) TO sentryops_auth;

-- Deletes what is older than `keep_days`, at least 90. Returns the number of rows.
CREATE FUNCTION audit_delete_strangers(keep_days integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH deleted AS (
        DELETE FROM public.audit_stranger
        WHERE id < public.audit_first_id(now() - greatest($1, 90) * interval '1 day') RETURNING id
    )
    SELECT count(*) FROM deleted
$$;
REVOKE ALL ON FUNCTION audit_delete_strangers(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_delete_strangers(integer) TO sentryops_fleet;
