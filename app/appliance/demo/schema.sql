-- The demo's seven tables, and the trigger that notifies of every change. Run at each start; changes nothing twice.

CREATE TABLE IF NOT EXISTS match (
    id int PRIMARY KEY, name text NOT NULL, home text NOT NULL, away text NOT NULL,
    home_abbr text NOT NULL, away_abbr text NOT NULL, status text NOT NULL, week int NOT NULL
);
CREATE TABLE IF NOT EXISTS matchdata (
    id int PRIMARY KEY, match_id int NOT NULL REFERENCES match, quarter int NOT NULL, down int, distance int,
    yardline int NOT NULL, possession text NOT NULL, drive_text text NOT NULL
);
CREATE TABLE IF NOT EXISTS scoreboard (
    id int PRIMARY KEY, match_id int NOT NULL REFERENCES match, home_score int NOT NULL, away_score int NOT NULL,
    home_timeouts int NOT NULL, away_timeouts int NOT NULL
);
CREATE TABLE IF NOT EXISTS gameclock (
    id int PRIMARY KEY, match_id int NOT NULL REFERENCES match, seconds int NOT NULL, running boolean NOT NULL
);
CREATE TABLE IF NOT EXISTS playclock (
    id int PRIMARY KEY, match_id int NOT NULL REFERENCES match, seconds int NOT NULL, running boolean NOT NULL
);
CREATE TABLE IF NOT EXISTS football_event (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, match_id int NOT NULL REFERENCES match, quarter int NOT NULL,
    clock int NOT NULL, kind text NOT NULL, team text, text text NOT NULL, yards int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS player_match (
    id int PRIMARY KEY, match_id int NOT NULL REFERENCES match, team text NOT NULL, number int NOT NULL,
    name text NOT NULL, position text NOT NULL, yards int NOT NULL, touchdowns int NOT NULL
);

-- Tells the channel that is its argument of a changed row; the match is the row's match_id, or its id in the table of
-- the matches themselves. A notification holds at most 7,999 bytes, and pg_notify would abort the very write it is to
-- tell of: so a row that doesn't fit, or is no JSON, is announced without its data. pg_notify stays outside the blocks
-- with EXCEPTION: PostgreSQL keeps 8 KiB of memory for each subtransaction that notifies until the transaction ends.
CREATE OR REPLACE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record;
    data jsonb;
    change jsonb;
    match jsonb;
    payload text;
BEGIN
    IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
    BEGIN
        data := to_jsonb(changed);
        change := jsonb_build_object(
            'table', TG_TABLE_NAME,
            'operation', TG_OP,
            'match_id', coalesce(data -> 'match_id', data -> 'id'),
            'new_id', CASE WHEN TG_OP <> 'DELETE' THEN data -> 'id' END,
            'old_id', CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) -> 'id' END,
            'data', data
        );
        payload := change;
        IF octet_length(payload) > 7999 THEN
            payload := change || '{"data": null}';
        END IF;
    EXCEPTION WHEN OTHERS THEN
        payload := NULL;  -- PostgreSQL stores values that it can't convert to JSON
    END;
    IF payload IS NULL OR octet_length(payload) > 7999 THEN
        BEGIN
            EXECUTE (
                SELECT format('SELECT to_jsonb(($1).%I)', max(attname::text)) FROM pg_attribute
                WHERE attrelid = TG_RELID AND attname IN ('id', 'match_id') AND NOT attisdropped
            ) INTO match USING changed;
        EXCEPTION WHEN OTHERS THEN
            match := NULL;
        END;
        payload := jsonb_build_object(
            'table', TG_TABLE_NAME,
            'operation', TG_OP,
            'match_id', CASE WHEN octet_length(match::text) < 7000 THEN match END,
            'new_id', NULL,
            'old_id', NULL,
            'data', NULL
        );
    END IF;
    PERFORM pg_notify(TG_ARGV[0], payload);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON match
    FOR EACH ROW EXECUTE FUNCTION notify_change('match_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON matchdata
    FOR EACH ROW EXECUTE FUNCTION notify_change('matchdata_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON scoreboard
    FOR EACH ROW EXECUTE FUNCTION notify_change('scoreboard_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON gameclock
    FOR EACH ROW EXECUTE FUNCTION notify_change('gameclock_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON playclock
    FOR EACH ROW EXECUTE FUNCTION notify_change('playclock_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON football_event
    FOR EACH ROW EXECUTE FUNCTION notify_change('football_event_change');
CREATE OR REPLACE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON player_match
    FOR EACH ROW EXECUTE FUNCTION notify_change('player_match_change');
