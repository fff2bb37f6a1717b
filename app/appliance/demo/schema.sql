-- The demo's seven tables, and what announces their changes. Run at each start; changes nothing twice.

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

-- The triggers of earlier versions of the demo, in a data folder that is used again.
DROP FUNCTION IF EXISTS notify_change() CASCADE;

SELECT notifymux.watch('match', channel => 'match_change', key => 'id');
SELECT notifymux.watch('matchdata', channel => 'matchdata_change', key => 'match_id');
SELECT notifymux.watch('scoreboard', channel => 'scoreboard_change', key => 'match_id');
SELECT notifymux.watch('gameclock', channel => 'gameclock_change', key => 'match_id');
SELECT notifymux.watch('playclock', channel => 'playclock_change', key => 'match_id');
SELECT notifymux.watch('football_event', channel => 'football_event_change', key => 'match_id');
SELECT notifymux.watch('player_match', channel => 'player_match_change', key => 'match_id');
