-- What became of each job that ended: one row a job, partitioned by day, dropped by the day.
CREATE TABLE job_history (
    id           uuid        NOT NULL,
    org_id       uuid        NOT NULL,
    queue        text        NOT NULL,
    kind         text        NOT NULL,
    subject      text,
    outcome      text        NOT NULL CONSTRAINT job_history_outcome_check CHECK (outcome IN
                     ('SUCCEEDED', 'CANCELLED', 'DISCARDED')),
    priority     integer     NOT NULL,
    attempt      smallint    NOT NULL,
    max_attempts smallint    NOT NULL,
    worker       uuid,
    actor_kind   text        NOT NULL,
    actor_id     uuid,
    error        text,
    run_at       timestamptz NOT NULL,
    queued_at    timestamptz NOT NULL,
    started_at   timestamptz,
    finished_at  timestamptz NOT NULL
) PARTITION BY RANGE (finished_at);
CREATE INDEX job_history_org_idx ON job_history (org_id, id);
-- Rows come in the order of time: a summary a range of pages is enough for what happened lately.
CREATE INDEX job_history_finished_idx ON job_history USING brin (finished_at) WITH (pages_per_range = 16, autosummarize = on);
-- Nothing is refused because a day has no partition yet.
CREATE TABLE job_history_rest PARTITION OF job_history DEFAULT;

ALTER TABLE job_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_history FORCE ROW LEVEL SECURITY;
CREATE POLICY job_history_app ON job_history TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY job_history_fleet ON job_history TO sentryops_fleet USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON job_history TO sentryops_app, sentryops_fleet;

-- Makes the partitions of the coming week and drops those older than `keep_days`; returns the dropped ones. For the
-- fleet, which owns no table. Postgres' clock decides; at least a day is kept whatever is asked for.
CREATE FUNCTION job_history_rotate(keep_days integer) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    today  constant date := (now() AT TIME ZONE 'UTC')::date;
    oldest constant date := today - greatest(keep_days, 1);
    day    date;
    name   text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('job_history_rotate')) THEN
        RETURN;
    END IF;
    -- Jobs that end must not queue behind a lock that a long reader keeps us from.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR day IN SELECT today + offsets FROM generate_series(0, 7) AS offsets LOOP
        name := 'job_history_' || to_char(day, 'YYYYMMDD');
        IF to_regclass('public.' || name) IS NULL THEN
            BEGIN
                EXECUTE format(
                    'CREATE TABLE public.%I PARTITION OF public.job_history FOR VALUES FROM (%L) TO (%L)',
                    name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            EXCEPTION WHEN check_violation THEN
                -- Rows of that day are in the rest already; they stay there until they are old.
                NULL;
            END;
        END IF;
    END LOOP;
    FOR name IN
        SELECT child.relname FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'public.job_history'::regclass AND child.relname ~ '^job_history_[0-9]{8}$'
          AND to_date(right(child.relname, 8), 'YYYYMMDD') < oldest
    LOOP
        EXECUTE format('DROP TABLE public.%I', name);
        RETURN NEXT name;
    END LOOP;
    DELETE FROM public.job_history_rest WHERE finished_at < oldest::timestamp AT TIME ZONE 'UTC';
END
$$;
REVOKE ALL ON FUNCTION job_history_rotate(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION job_history_rotate(integer) TO sentryops_fleet;
SELECT job_history_rotate(30);
