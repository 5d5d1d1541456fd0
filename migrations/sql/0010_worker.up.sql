-- A process that takes jobs: one row a boot. It beats; whoever sees a silent one for an hour removes it.
CREATE TABLE worker (
    id           uuid        NOT NULL PRIMARY KEY,
    host         text        NOT NULL,
    version      text        NOT NULL,
    queues       text[]      NOT NULL,
    running      integer     NOT NULL,
    capacity     integer     NOT NULL,
    is_draining  boolean     NOT NULL DEFAULT false,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL
);
ALTER TABLE worker ENABLE ROW LEVEL SECURITY;
ALTER TABLE worker FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_fleet ON worker TO sentryops_fleet USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON worker TO sentryops_fleet;
