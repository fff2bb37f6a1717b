"""What a client subscribes to: a match, or all events with one value of another key of ROUTING_KEY.

A match is the text of its id. So with one key a topic is a string, and costs nothing more than one.
"""

from typing import NamedTuple

from app.broadcast.match_id import match_to_json
from app.core.query_files import MATCH_ID


class KeyValue(NamedTuple):
    """A value of another key than the match id's; it has the form and the text of a match id."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key} {self.value}"


Topic = str | KeyValue


def topic_of(key: str, text: str) -> Topic:
    """Return the topic with a text under a key, as messages have it; the match's key is `match_id`."""
    return text if key == MATCH_ID else KeyValue(key, text)


def topic_name(topic: Topic) -> tuple[str, str]:
    """Return what a topic is called in messages, and as the parameter of a query; and its text."""
    return topic if isinstance(topic, KeyValue) else (MATCH_ID, topic)


def topic_to_json(topic: Topic) -> bytes:
    """Return a topic as a member of a JSON object: `"match_id":7`, `"tournament_id":5`."""
    name, text = topic_name(topic)
    return b'"%b":%b' % (name.encode(), match_to_json(text))
