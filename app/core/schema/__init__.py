"""The schema `notifymux` in PostgreSQL: the functions that announce changes, and the triggers that call them.

`python -m listener install` applies it to the database of the settings, and the demo to its own.
"""
