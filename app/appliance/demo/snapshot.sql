-- The demo's SNAPSHOT_QUERY: a match as one JSON object.
SELECT json_build_object(
    'match', (SELECT to_json(m) FROM match m WHERE m.id = %(match_id)s),
    'matchdata', (SELECT to_json(d) FROM matchdata d WHERE d.match_id = %(match_id)s),
    'scoreboard', (SELECT to_json(s) FROM scoreboard s WHERE s.match_id = %(match_id)s),
    'gameclock', (SELECT to_json(c) FROM gameclock c WHERE c.match_id = %(match_id)s),
    'playclock', (SELECT to_json(c) FROM playclock c WHERE c.match_id = %(match_id)s),
    'events', (
        SELECT coalesce(json_agg(e ORDER BY e.id DESC), '[]')
        FROM (SELECT * FROM football_event WHERE match_id = %(match_id)s ORDER BY id DESC LIMIT 10) e
    ),
    'players', (
        SELECT coalesce(json_agg(p ORDER BY p.id), '[]') FROM player_match p WHERE p.match_id = %(match_id)s
    )
)
