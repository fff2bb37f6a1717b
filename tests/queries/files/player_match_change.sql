-- message: players-update
-- spread: true
-- deletes: true
SELECT json_build_object('players', coalesce(json_agg(p ORDER BY p.id), '[]'))
FROM player_match p WHERE p.match_id = %(match_id)s
