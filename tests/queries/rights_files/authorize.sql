-- claims: sub
SELECT EXISTS (SELECT FROM membership WHERE member = %(claims)s::json ->> 'sub' AND match_id = %(match_id)s)
