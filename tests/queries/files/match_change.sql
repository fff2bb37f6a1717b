SELECT row_to_json(m) FROM match m WHERE m.id = %(match_id)s
