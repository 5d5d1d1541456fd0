-- One partition a month, because the trail becomes the largest table: an old month is dropped, not deleted row by row. A
-- month is that of the time in the id, a UUID of version 7, so the key stays (org_id, id).
ALTER TABLE audit_entry RENAME TO audit_entry_whole;
ALTER INDEX audit_entry_pkey RENAME TO audit_entry_whole_pkey;
ALTER INDEX audit_entry_entity_idx RENAME TO audit_entry_whole_entity_idx;
ALTER INDEX audit_entry_actor_idx RENAME TO audit_entry_whole_actor_idx;

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
    CONSTRAINT audit_entry_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT audit_entry_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
) PARTITION BY RANGE (id);
CREATE INDEX audit_entry_entity_idx ON audit_entry (org_id, entity_type, entity_id, id DESC);
CREATE INDEX audit_entry_actor_idx ON audit_entry (org_id, actor_id, id DESC);
-- Nothing is refused because a month has no partition yet.
CREATE TABLE audit_entry_rest PARTITION OF audit_entry DEFAULT;

ALTER TABLE audit_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_entry_app ON audit_entry FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
-- For `audit_append`, which runs as the owner.
CREATE POLICY audit_entry_append ON audit_entry FOR INSERT TO CURRENT_USER WITH CHECK (true);
GRANT SELECT ON audit_entry TO sentryops_app;

-- Returns the smallest UUID of version 7 of a point in time.
CREATE FUNCTION audit_first_id(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;
REVOKE ALL ON FUNCTION audit_first_id(timestamptz) FROM PUBLIC;

-- Creates the partition of the month in which `at` is, unless it exists or its rows are in the rest already.
CREATE FUNCTION audit_create_month(at timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    month constant timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
    name  constant text := 'audit_entry_' || to_char(month, 'YYYYMM');
BEGIN
    IF to_regclass('public.' || name) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE public.%I PARTITION OF public.audit_entry FOR VALUES FROM (%L) TO (%L)', name,
            public.audit_first_id(month AT TIME ZONE 'UTC'),
            public.audit_first_id((month + interval '1 month') AT TIME ZONE 'UTC'));
    END IF;
EXCEPTION WHEN check_violation THEN
    NULL;
END
$$;
REVOKE ALL ON FUNCTION audit_create_month(timestamptz) FROM PUBLIC;

-- Creates the partitions of this month and the two after it, and drops those whose last entry is older than `keep_days`,
-- at least 90. Returns the dropped ones. For the fleet, which owns no table. Postgres' clock decides.
CREATE FUNCTION audit_rotate(keep_days integer) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    oldest constant timestamptz := now() - greatest(keep_days, 90) * interval '1 day';
    name   text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('audit_rotate')) THEN
        RETURN;
    END IF;
    -- Changes, each of which writes an entry, must not queue behind a lock that a long reader keeps us from.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR months IN 0..2 LOOP
        PERFORM public.audit_create_month(now() + months * interval '1 month');
    END LOOP;
    FOR name IN
        SELECT child.relname FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'public.audit_entry'::regclass AND child.relname ~ '^audit_entry_[0-9]{6}$'
          AND (to_date(right(child.relname, 6), 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC' <= oldest
    LOOP
        EXECUTE format('DROP TABLE public.%I', name);
        RETURN NEXT name;
    END LOOP;
    DELETE FROM public.audit_entry_rest WHERE at < oldest;
END
$$;
REVOKE ALL ON FUNCTION audit_rotate(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_rotate(integer) TO sentryops_fleet;

-- Appends entries to the trail of an organization, and sets their ids and time: nobody who uses the application's login
-- writes an entry of the past, or of an organization other than that of its transaction. Ids sort in the order of writing.
-- `paths` has the paths of an entry in one text, separated by U+001F.
CREATE FUNCTION audit_append(
    org uuid, source_ip inet, request_id text, actor_kinds text[], actor_ids uuid[], actions text[], entity_types text[],
    entity_ids uuid[], paths text[], befores jsonb[], afters jsonb[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    written_at constant timestamptz := clock_timestamp();
    -- Milliseconds, and 12 bits of their fraction.
    tick       constant bigint := floor(extract(epoch FROM written_at) * 1000 * 4096)::bigint;
BEGIN
    -- The role that the transaction has taken, although the function runs as the owner.
    IF current_setting('role') = 'sentryops_app'
        AND org IS DISTINCT FROM NULLIF(current_setting('app.org_id', true), '')::uuid
    THEN
        RAISE insufficient_privilege USING MESSAGE = 'the audit trail of another organization';
    END IF;
    INSERT INTO public.audit_entry (org_id, id, at, actor_kind, actor_id, action, entity_type, entity_id, changed_paths,
                                    before, after, source_ip, request_id)
    SELECT audit_append.org,
           (overlay(lpad(to_hex(tick + place - 1), 15, '0') PLACING '7' FROM 13 FOR 0)
                || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid,
           written_at, actor_kind, actor_id, action, entity_type, entity_id, string_to_array(path, E'\x1f'), before, after,
           audit_append.source_ip, audit_append.request_id
    FROM unnest(actor_kinds, actor_ids, actions, entity_types, entity_ids, paths, befores, afters) WITH ORDINALITY
         AS entry (actor_kind, actor_id, action, entity_type, entity_id, path, before, after, place);
END
$$;
REVOKE ALL ON FUNCTION audit_append(uuid, inet, text, text[], uuid[], text[], text[], uuid[], text[], jsonb[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_append(uuid, inet, text, text[], uuid[], text[], text[], uuid[], text[], jsonb[], jsonb[])
    TO sentryops_app, sentryops_auth;

-- The months of the entries that exist. Entries that are older than three years, or whose ids are no times, stay in the rest.
ALTER TABLE audit_entry_whole NO FORCE ROW LEVEL SECURITY;
SELECT audit_create_month(month AT TIME ZONE 'UTC')
FROM (SELECT least(greatest(coalesce(min(at), now()), now() - interval '3 years'), now()) AT TIME ZONE 'UTC' AS at FROM audit_entry_whole)
         AS earliest,
     generate_series(date_trunc('month', at), (now() AT TIME ZONE 'UTC') + interval '2 months', interval '1 month') AS month;
INSERT INTO audit_entry SELECT * FROM audit_entry_whole;
DROP TABLE audit_entry_whole;
