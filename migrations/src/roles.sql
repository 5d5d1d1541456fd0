DO $roles$
DECLARE
    login   constant text := current_setting('sentryops.login');
    is_16   constant boolean := current_setting('server_version_num')::int >= 160000;
    -- From PostgreSQL 16 on a membership itself says whether it inherits; before, the member does.
    terms   constant text := CASE WHEN is_16 THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;
    member  text;
BEGIN
    -- Owns the schema and migrates it.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sentryops_owner') THEN
        CREATE ROLE sentryops_owner NOLOGIN;
    END IF;

    -- Serves the application. It can do nothing by itself: each transaction takes one of the three roles below.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login) THEN
        EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', login);
    ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = login AND rolinherit) THEN
        EXECUTE format('ALTER ROLE %I NOINHERIT', login);
    END IF;

    -- One organization; people before an organization is known; jobs and schedules of all organizations.
    FOREACH member IN ARRAY ARRAY['sentryops_app', 'sentryops_auth', 'sentryops_fleet'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = member) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', member);
        ELSIF EXISTS (
            SELECT FROM pg_roles WHERE rolname = member AND (rolsuper OR rolreplication OR rolbypassrls)
        ) THEN
            EXECUTE format('ALTER ROLE %I NOSUPERUSER NOREPLICATION NOBYPASSRLS', member);
        END IF;
        IF EXISTS (
            SELECT FROM pg_roles
            WHERE rolname = member AND (rolcanlogin OR rolinherit OR rolcreatedb OR rolcreaterole)
        ) THEN
            EXECUTE format('ALTER ROLE %I NOLOGIN NOINHERIT NOCREATEDB NOCREATEROLE', member);
        END IF;
        EXECUTE format('GRANT %I TO %I%s', member, login, terms);
    END LOOP;

    -- An administrator who is no superuser migrates as a member of the owner; the application never is one.
    IF session_user NOT IN (login, 'sentryops_owner')
        AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND rolsuper)
    THEN
        EXECUTE format('GRANT sentryops_owner TO %I%s', session_user, terms);
    END IF;
END
$roles$;
-- The option lets migrations pass USAGE on to the three roles.
GRANT CREATE, USAGE ON SCHEMA public TO sentryops_owner WITH GRANT OPTION;
-- Before PostgreSQL 15 everybody may create in it, and so put a function in our way.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
RESET sentryops.login;
