-- claims: tenant
-- deletes: true
SET LOCAL ROLE viewer;
SELECT set_config('app.tenant', %(claims)s::json ->> 'tenant', true);
SELECT json_build_object('players', coalesce(json_agg(name ORDER BY id), '[]')) FROM player
WHERE match_id = %(match_id)s
