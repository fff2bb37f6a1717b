"""The schema `notifymux` in a test's database, and what its triggers announce."""

import json
from typing import Any

import psycopg

from app.core.schema.script import install_script


def install(session: psycopg.Connection, source: str = "notify") -> None:
    """Install the schema as `python -m listener install` does."""
    with session.transaction():
        session.execute(install_script(source).encode())


def heard(session: psycopg.Connection) -> list[Any]:
    """The payloads of what a session that LISTENs has heard since the last call, of its own transactions."""
    session.execute("SELECT 1")  # a session's own notifications come before the answer to its next query
    return [json.loads(note.payload) for note in session.notifies(timeout=0)]
