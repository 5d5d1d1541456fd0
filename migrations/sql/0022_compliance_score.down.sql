DROP INDEX compliance_run_open_idx;
ALTER TABLE compliance_run
    DROP COLUMN scope, DROP COLUMN scope_key, DROP COLUMN rules, DROP COLUMN waived, DROP COLUMN errors, DROP COLUMN opened,
    DROP COLUMN fixed, DROP COLUMN scored, DROP COLUMN score_sum, DROP COLUMN passed_weight, DROP COLUMN failed_weight,
    DROP COLUMN waived_weight, DROP COLUMN whole_weight, DROP COLUMN judged_at, DROP COLUMN round,
    DROP COLUMN tallies;
