-- What a run found beyond counts, over which assets, by which rules. Sums and not means, so that shards add up in any order.
ALTER TABLE compliance_run
    -- The filter; none: all assets in operation.
    ADD COLUMN scope         jsonb,
    -- One text for the same filter: of each there is one open run.
    ADD COLUMN scope_key     text    NOT NULL DEFAULT '',
    -- [{"slot", "rule", "version", "params"}, …] as they were when it last began.
    ADD COLUMN rules         jsonb   NOT NULL DEFAULT '[]',
    ADD COLUMN waived        integer NOT NULL DEFAULT 0,
    ADD COLUMN errors        integer NOT NULL DEFAULT 0,
    ADD COLUMN opened        integer NOT NULL DEFAULT 0,
    ADD COLUMN fixed         integer NOT NULL DEFAULT 0,
    -- Assets with a score, and the sum of those, in millionths of a percent.
    ADD COLUMN scored        integer NOT NULL DEFAULT 0,
    ADD COLUMN score_sum     bigint  NOT NULL DEFAULT 0,
    ADD COLUMN passed_weight bigint  NOT NULL DEFAULT 0,
    ADD COLUMN failed_weight bigint  NOT NULL DEFAULT 0,
    ADD COLUMN waived_weight bigint  NOT NULL DEFAULT 0,
    ADD COLUMN whole_weight  bigint  NOT NULL DEFAULT 0,
    -- How often it has begun: anew whenever rules change before it ends.
    ADD COLUMN round         smallint NOT NULL DEFAULT 1,
    -- The latest time at which one of its assets was judged: it ends no earlier.
    ADD COLUMN judged_at     timestamptz,
    -- By rule, in the order of rules: passed, failed, waived, not assessed, errors.
    ADD COLUMN tallies       integer[] NOT NULL DEFAULT '{}';
-- Those that an earlier version started run to their end: more than one may be open.
CREATE UNIQUE INDEX compliance_run_open_idx ON compliance_run (org_id, scope_key)
    WHERE state IN ('QUEUED', 'RUNNING') AND scope_key <> '';
