-- An asset's verdicts now: one letter a rule, at the rule's slot (see domain::posture). Written where it changed, by runs and
-- after changes alike; whoever writes holds the organization's posture lock, takes it before it reads facts, and so never
-- puts an older look over a newer one.
-- No foreign key to the asset: it would be checked for each of a hundred thousand rows. Deleting an asset takes the lock and
-- deletes its posture itself.
CREATE TABLE posture (
    org_id           uuid        NOT NULL,
    asset_id         uuid        NOT NULL,
    verdicts         text        NOT NULL COLLATE "C",
    -- Weights of the rules by what they say: passed, failed, waived, and all that apply.
    passed_weight    integer     NOT NULL,
    failed_weight    integer     NOT NULL,
    waived_weight    integer     NOT NULL,
    whole_weight     integer     NOT NULL,
    -- Passed of passed and failed, in millionths of a percent; none where nothing is assessed.
    score            integer     CONSTRAINT posture_score_check CHECK (score BETWEEN 0 AND 100000000),
    -- What the rules read, hashed: while it stays, evidence does.
    facts_hash       bigint      NOT NULL,
    -- Which verdicts time alone will change next, and when: [[slot, microseconds, letter], …].
    flips            jsonb,
    flips_at         timestamptz,
    -- Why a rule could not be judged, by its slot.
    errors           jsonb,
    evaluated_at     timestamptz NOT NULL,
    PRIMARY KEY (org_id, asset_id)
) WITH (fillfactor = 85);
CREATE INDEX posture_flips_idx ON posture (org_id, flips_at) WHERE flips_at IS NOT NULL;

-- What is to be judged anew: an asset, the assets of an owner, or all of them. Deleted by whoever does it.
CREATE TABLE posture_due (
    org_id   uuid   NOT NULL,
    id       uuid   NOT NULL,
    asset_id uuid,
    owner_id uuid,
    -- What changed of it, as rules name it; all where it is not said.
    reads    text[],
    PRIMARY KEY (org_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX posture_due_all_idx ON posture_due (org_id) WHERE asset_id IS NULL AND owner_id IS NULL;

ALTER TABLE posture ENABLE ROW LEVEL SECURITY;
ALTER TABLE posture FORCE ROW LEVEL SECURITY;
-- The organization is asked for once a statement, not for each row.
CREATE POLICY posture_app ON posture TO sentryops_app
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid))
    WITH CHECK (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON posture TO sentryops_app;

ALTER TABLE posture_due ENABLE ROW LEVEL SECURITY;
ALTER TABLE posture_due FORCE ROW LEVEL SECURITY;
CREATE POLICY posture_due_app ON posture_due TO sentryops_app
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid))
    WITH CHECK (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY posture_due_auth ON posture_due FOR INSERT TO sentryops_auth WITH CHECK (true);
CREATE POLICY posture_due_fleet ON posture_due FOR SELECT TO sentryops_fleet USING (true);
GRANT SELECT, INSERT, DELETE ON posture_due TO sentryops_app;
GRANT INSERT ON posture_due TO sentryops_auth;
GRANT SELECT ON posture_due TO sentryops_fleet;
