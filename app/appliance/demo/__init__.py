"""The demo: invented matches of American football, played into the embedded PostgreSQL.

`match` is the game (pure: no clock, no database), `teams` who plays it, `tables` its rows, `player` the program that
plays all matches. The rows are written by ordinary SQL, and triggers notify, as in any user's database. It must never
write to a server that is not the embedded one.
"""
