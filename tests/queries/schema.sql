-- Seven tables of a scoreboard, and triggers that announce ids: three of the seven never send a row, none does after a
-- DELETE, and a scoreboard's row may be too large for a notification.

CREATE TABLE match (id int PRIMARY KEY, title text NOT NULL, status text NOT NULL);
CREATE TABLE matchdata (id int PRIMARY KEY, match_id int NOT NULL, quarter int NOT NULL, down int);
CREATE TABLE scoreboard (
    id int PRIMARY KEY, match_id int NOT NULL, home int NOT NULL, away int NOT NULL, style text NOT NULL DEFAULT ''
);
CREATE TABLE gameclock (id int PRIMARY KEY, match_id int NOT NULL, seconds int NOT NULL, running boolean NOT NULL);
CREATE TABLE playclock (id int PRIMARY KEY, match_id int NOT NULL, seconds int NOT NULL, running boolean NOT NULL);
CREATE TABLE football_event (id int PRIMARY KEY, match_id int NOT NULL, kind text NOT NULL, yards int NOT NULL);
CREATE TABLE player_match (
    id int PRIMARY KEY, match_id int NOT NULL, name text NOT NULL, yards int NOT NULL, starts boolean NOT NULL
);

CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    payload jsonb := jsonb_build_object(
        'table', TG_TABLE_NAME,
        'operation', TG_OP,
        'new_id', CASE WHEN TG_OP <> 'DELETE' THEN changed -> 'id' END,
        'old_id', CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) -> 'id' END,
        'match_id', coalesce(changed -> 'match_id', changed -> 'id')
    );
BEGIN
    IF TG_ARGV[0] = 'with the row' THEN
        payload := payload || jsonb_build_object('data', CASE WHEN TG_OP <> 'DELETE' THEN changed END);
    END IF;
    PERFORM pg_notify(TG_TABLE_NAME || '_change', payload::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON match
    FOR EACH ROW EXECUTE FUNCTION announce();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON football_event
    FOR EACH ROW EXECUTE FUNCTION announce();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON player_match
    FOR EACH ROW EXECUTE FUNCTION announce();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON scoreboard
    FOR EACH ROW EXECUTE FUNCTION announce();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON matchdata
    FOR EACH ROW EXECUTE FUNCTION announce('with the row');
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON gameclock
    FOR EACH ROW EXECUTE FUNCTION announce('with the row');
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON playclock
    FOR EACH ROW EXECUTE FUNCTION announce('with the row');

INSERT INTO match VALUES (1, 'Herons at Badgers', 'live'), (2, 'Others at Nowhere', 'live');
INSERT INTO matchdata VALUES (11, 1, 1, 1);
INSERT INTO scoreboard VALUES (12, 1, 0, 0);
INSERT INTO gameclock VALUES (13, 1, 900, false);
INSERT INTO playclock VALUES (14, 1, 40, false);
