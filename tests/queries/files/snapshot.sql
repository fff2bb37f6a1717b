SELECT json_build_object(
    'match', (SELECT row_to_json(m) FROM match m WHERE m.id = %(match_id)s),
    'matchdata', (SELECT row_to_json(d) FROM matchdata d WHERE d.match_id = %(match_id)s),
    'scoreboard', (SELECT row_to_json(s) FROM scoreboard s WHERE s.match_id = %(match_id)s),
    'gameclock', (SELECT row_to_json(c) FROM gameclock c WHERE c.match_id = %(match_id)s),
    'playclock', (SELECT row_to_json(c) FROM playclock c WHERE c.match_id = %(match_id)s),
    'events', (
        SELECT coalesce(json_agg(e ORDER BY e.id), '[]') FROM football_event e WHERE e.match_id = %(match_id)s
    ),
    'players', (
        SELECT coalesce(json_agg(p ORDER BY p.id), '[]') FROM player_match p WHERE p.match_id = %(match_id)s
    )
)
