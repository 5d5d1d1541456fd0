-- An invitation becomes an inactive membership, which an older program knows and which gives no right either.
DROP VIEW member;
REVOKE SELECT (org_id, user_id, active, permissions, created_at, state, invited_at, invited_by, invited_name)
    ON membership FROM sentryops_app;
GRANT SELECT ON membership TO sentryops_app;
ALTER TABLE membership
    DROP CONSTRAINT membership_invitation_check,
    DROP COLUMN state, DROP COLUMN invited_at, DROP COLUMN invited_by, DROP COLUMN invited_name, DROP COLUMN invitation_hash;
ALTER TABLE "user" DROP COLUMN password_own, DROP COLUMN created_in;
