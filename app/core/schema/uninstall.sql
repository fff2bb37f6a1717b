-- Removes the schema notifymux; does nothing where there is none. It refuses while anything calls its functions.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '10s';

DO $$
DECLARE
    used text;
BEGIN
    PERFORM pg_advisory_xact_lock(@lock@);
    IF to_regprocedure('notifymux.installed()') IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(DISTINCT tgrelid::regclass::text, ', ') INTO used
    FROM pg_trigger JOIN pg_proc AS p ON p.oid = tgfoid
    WHERE pronamespace = 'notifymux'::regnamespace AND tgparentid = 0;
    IF used IS NOT NULL THEN
        RAISE 'tables are watched: %; call notifymux.unwatch() for each first', used;
    END IF;
    SELECT string_agg(oid::regprocedure::text, ', ') INTO used FROM pg_proc
    WHERE pronamespace <> 'notifymux'::regnamespace AND strpos(prosrc, 'notifymux.notify') > 0;
    IF used IS NOT NULL THEN
        RAISE 'functions call notifymux.notify(): %; replace or drop them first', used;
    END IF;
    SELECT string_agg(oid::regprocedure::text, ', ') INTO used FROM pg_proc
    WHERE pronamespace = 'notifymux'::regnamespace AND proname IN ('installed', 'notify', 'shortened', 'members', 'change',
        'row_payload', 'json_or_null', 'announce_row', 'named_columns', 'announce_rows', 'watch', 'unwatch');
    EXECUTE format('DROP FUNCTION %s', used);
    DROP SCHEMA notifymux;
END
$$;
