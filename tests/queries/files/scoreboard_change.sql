-- deletes: true
SELECT row_to_json(s) FROM scoreboard s WHERE s.match_id = %(match_id)s
