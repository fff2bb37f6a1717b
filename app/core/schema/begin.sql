-- The schema notifymux, version @version@, for SOURCE=@source@. Running this again changes nothing, and an older version
-- becomes this one: functions are replaced, so the triggers that call them stay as they are.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '10s';

DO $$
DECLARE
    found int;
BEGIN
    -- Two installs at once would fail at each other's changes of the same functions.
    PERFORM pg_advisory_xact_lock(@lock@);
    IF to_regnamespace('notifymux') IS NULL THEN
        CREATE SCHEMA notifymux;
    ELSIF to_regprocedure('notifymux.installed()') IS NOT NULL THEN
        EXECUTE 'SELECT version FROM notifymux.installed()' INTO found;
        IF found > @version@ THEN
            RAISE 'the schema notifymux here is version %, and this program installs version @version@: use a newer one',
                found;
        END IF;
    ELSIF EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('notifymux'))
        OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('notifymux')) THEN
        RAISE 'a schema notifymux is here that is somebody else''s: rename it';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION notifymux.installed(OUT version int, OUT source text) LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT @version@, '@source@' $$;
