CREATE TABLE match (id int PRIMARY KEY, tenant text NOT NULL, home text NOT NULL);
CREATE TABLE player (id int PRIMARY KEY, match_id int NOT NULL, tenant text NOT NULL, name text NOT NULL);
CREATE TABLE membership (member text NOT NULL, match_id int NOT NULL);

INSERT INTO match VALUES (1, 'north', 'Badgers'), (2, 'south', 'Otters');
INSERT INTO player VALUES (1, 1, 'north', 'Ann'), (2, 1, 'south', 'Ben');
INSERT INTO membership VALUES ('ann', 1), ('ben', 1), ('ben', 2);

-- A client is shown the players of its own tenant, by a role that is not the table's owner.
CREATE ROLE viewer;
GRANT SELECT ON player TO viewer;
ALTER TABLE player ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_players ON player USING (tenant = current_setting('app.tenant', true));

CREATE FUNCTION announce_player() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('player_change', json_build_object(
        'operation', TG_OP, 'match_id', coalesce(NEW.match_id, OLD.match_id), 'new_id', NEW.id, 'old_id', OLD.id,
        'data', coalesce(NEW, OLD)
    )::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_player AFTER INSERT OR UPDATE OR DELETE ON player
    FOR EACH ROW EXECUTE FUNCTION announce_player();
