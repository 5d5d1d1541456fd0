DROP TABLE organization;
REVOKE USAGE ON SCHEMA public FROM sentryops_app, sentryops_auth, sentryops_fleet;
