"""The demo: an invented match of American football, played into the embedded PostgreSQL.

`match` is the game (pure: no clock, no database), `tables` its rows, `player` the program. The rows are written by
ordinary SQL, and triggers notify, as in any user's database. It must never write to a server that is not the embedded
one.
"""
