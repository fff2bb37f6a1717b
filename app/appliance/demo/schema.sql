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
-- tell of: so a row that doesn't fit is announced without its data.
CREATE OR REPLACE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    data jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    change jsonb := jsonb_build_object(
        'table', TG_TABLE_NAME,
        'operation', TG_OP,
        'match_id', coalesce(data -> 'match_id', data -> 'id'),
        'new_id', CASE WHEN TG_OP <> 'DELETE' THEN data -> 'id' END,
        'old_id', CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) -> 'id' END,
        'data', data
    );
    payload text := change;
BEGIN
    IF octet_length(payload) > 7999 THEN
        payload := change || '{"data": null}';
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
