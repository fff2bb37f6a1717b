-- All events of the match: a page that shows a list needs no memory of its own.
-- spread: true
-- deletes: true
SELECT json_build_object(
    'events', coalesce(json_agg(e ORDER BY e.id), '[]'),
    'server_time_ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint
)
FROM football_event e WHERE e.match_id = %(match_id)s
