-- One import of a file. Its rows wait in chunks, in Postgres because API and worker share no disk; a chunk goes with the
-- transaction that imports it.
CREATE TABLE import_run (
    org_id          uuid        NOT NULL CONSTRAINT import_run_org_id_fkey REFERENCES organization,
    id              uuid        NOT NULL,
    kind            text        NOT NULL CONSTRAINT import_run_kind_check CHECK (kind IN ('ASSETS', 'DEPENDENCIES')),
    format          text        NOT NULL CONSTRAINT import_run_format_check CHECK (format IN ('CSV', 'JSON')),
    state           text        NOT NULL CONSTRAINT import_run_state_check CHECK (state IN
                        ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    dry_run         boolean     NOT NULL,
    empty_cells     text        NOT NULL CONSTRAINT import_run_empty_cells_check CHECK (empty_cells IN ('KEEP', 'CLEAR')),
    actor_kind      text        NOT NULL CONSTRAINT import_run_actor_kind_check CHECK (actor_kind IN ('user', 'api_key', 'system')),
    actor_id        uuid,
    -- Begins with whose it is.
    idempotency_key text        CONSTRAINT import_run_idempotency_key_check CHECK (length(idempotency_key) BETWEEN 1 AND 320),
    -- Why it failed.
    error           text,
    rows            integer     NOT NULL DEFAULT 0,
    done            integer     NOT NULL DEFAULT 0,
    created         integer     NOT NULL DEFAULT 0,
    updated         integer     NOT NULL DEFAULT 0,
    unchanged       integer     NOT NULL DEFAULT 0,
    failed          integer     NOT NULL DEFAULT 0,
    chunks          integer     NOT NULL DEFAULT 0,
    chunks_done     integer     NOT NULL DEFAULT 0,
    errors_kept     integer     NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL,
    -- When its last row had come; until then none is imported.
    received_at     timestamptz,
    -- When rows last came or were imported.
    advanced_at     timestamptz NOT NULL,
    finished_at     timestamptz,
    PRIMARY KEY (org_id, id),
    CONSTRAINT import_run_idempotency_key UNIQUE (org_id, idempotency_key),
    CONSTRAINT import_run_chunks_check CHECK (chunks_done BETWEEN 0 AND chunks),
    CONSTRAINT import_run_finished_check CHECK ((finished_at IS NULL) = (state IN ('QUEUED', 'RUNNING'))),
    CONSTRAINT import_run_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX import_run_open_idx ON import_run (org_id) WHERE finished_at IS NULL;
CREATE INDEX import_run_finished_idx ON import_run (finished_at) WHERE finished_at IS NOT NULL;

-- What the cells of a run's rows are, once for all chunks: a header may be larger than a chunk.
CREATE TABLE import_table (
    org_id    uuid   NOT NULL,
    run_id    uuid   NOT NULL,
    kind      text   NOT NULL CONSTRAINT import_table_kind_check CHECK (kind IN ('ASSETS', 'DEPENDENCIES')),
    -- The header of a CSV file, and what stands between its cells.
    columns   text[] NOT NULL,
    delimiter text   NOT NULL,
    PRIMARY KEY (org_id, run_id, kind),
    CONSTRAINT import_table_run_fkey FOREIGN KEY (org_id, run_id) REFERENCES import_run (org_id, id) ON DELETE CASCADE
);

CREATE TABLE import_chunk (
    org_id    uuid    NOT NULL,
    run_id    uuid    NOT NULL,
    place     integer NOT NULL,
    kind      text    NOT NULL,
    -- How many rows of the file this is, those without content included.
    rows      integer NOT NULL,
    -- The number in the file of each row of the content.
    numbers   integer[] NOT NULL,
    content   bytea   NOT NULL,
    PRIMARY KEY (org_id, run_id, place),
    CONSTRAINT import_chunk_table_fkey FOREIGN KEY (org_id, run_id, kind) REFERENCES import_table ON DELETE CASCADE
);
-- Written once, read once: compressing 512 MiB would take longer than all the rest of the upload.
ALTER TABLE import_chunk ALTER COLUMN content SET STORAGE EXTERNAL;

-- What is wrong with a row.
CREATE TABLE import_error (
    org_id     uuid    NOT NULL,
    id         uuid    NOT NULL,
    run_id     uuid    NOT NULL,
    kind       text    NOT NULL CONSTRAINT import_error_kind_check CHECK (kind IN ('ASSETS', 'DEPENDENCIES')),
    "row"      integer NOT NULL,
    "column"   text    CONSTRAINT import_error_column_check CHECK (length("column") <= 1000),
    message    text    NOT NULL CONSTRAINT import_error_message_check CHECK (length(message) <= 1000),
    suggestion text    CONSTRAINT import_error_suggestion_check CHECK (length(suggestion) <= 1000),
    PRIMARY KEY (org_id, id),
    CONSTRAINT import_error_run_fkey FOREIGN KEY (org_id, run_id) REFERENCES import_run (org_id, id) ON DELETE CASCADE
);
CREATE INDEX import_error_run_idx ON import_error (org_id, run_id, "row", id);

-- What a run's rows are about, and which row came first: the second of the same is told so. Goes when the run has ended.
CREATE TABLE import_key (
    org_id uuid    NOT NULL,
    run_id uuid    NOT NULL,
    key    text    NOT NULL,
    "row"  integer NOT NULL,
    PRIMARY KEY (org_id, run_id, key)
);

ALTER TABLE import_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_run FORCE ROW LEVEL SECURITY;
CREATE POLICY import_run_app ON import_run TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON import_run TO sentryops_app;
-- What ended long ago goes with the job history.
CREATE POLICY import_run_fleet ON import_run TO sentryops_fleet USING (finished_at IS NOT NULL) WITH CHECK (false);
GRANT SELECT (org_id, id, finished_at), DELETE ON import_run TO sentryops_fleet;

ALTER TABLE import_table ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_table FORCE ROW LEVEL SECURITY;
CREATE POLICY import_table_app ON import_table TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON import_table TO sentryops_app;

ALTER TABLE import_chunk ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_chunk FORCE ROW LEVEL SECURITY;
CREATE POLICY import_chunk_app ON import_chunk TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON import_chunk TO sentryops_app;

ALTER TABLE import_error ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_error FORCE ROW LEVEL SECURITY;
CREATE POLICY import_error_app ON import_error TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT ON import_error TO sentryops_app;

ALTER TABLE import_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_key FORCE ROW LEVEL SECURITY;
CREATE POLICY import_key_app ON import_key TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, DELETE ON import_key TO sentryops_app;
