"""What a client of many topics asks for: to hear one, to hear no more of it, to go on with a new token."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

import msgspec

from app.broadcast.match_id import match_from_json
from app.broadcast.match_rights import MatchRights, Verdict
from app.broadcast.messages import RENEWED, refused, unsubscribed
from app.broadcast.topic import Topic, topic_of
from app.core.query_files import MATCH_ID
from app.core.tasks import cancel_tasks, start_task
from app.web.access_control import AccessControl, Admission
from app.web.token_bucket import TokenBucket
from app.web.tokens import TokenError
from app.web.watched_subscriptions import FORBIDDEN, UNAVAILABLE, WatchedSubscriptions
from notifymux.event import NULL, EventId

MAX_SUBSCRIPTIONS = 128  # of a connection; as many requests are within the rate at once
REQUESTS_PER_SECOND = 10.0

_TOO_MANY = "too-many", f"a connection may have {MAX_SUBSCRIPTIONS} subscriptions"
_TOO_FAST = "too-fast", f"more than {REQUESTS_PER_SECOND:g} requests a second: try again in a second"
_NO_REQUEST = "malformed", "this is no JSON object with a type that is known"


class _Request(msgspec.Struct, gc=False):
    """A request, with what any of them may carry."""

    type: str
    match_id: msgspec.Raw = msgspec.Raw(NULL)
    last_event_id: msgspec.Raw = msgspec.Raw(NULL)
    token: msgspec.Raw = msgspec.Raw(NULL)


@lru_cache(maxsize=1)
def _decoder(other_keys: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Return the decoder of requests, which may name a topic by other keys too; one for all connections."""
    keys = [(key, msgspec.Raw, msgspec.Raw(NULL)) for key in other_keys]
    return msgspec.json.Decoder(msgspec.defstruct("Request", keys, bases=(_Request,), gc=False))


class SubscriptionRequests:
    """Does what a client asks for, and answers it. A request that is refused changes nothing.

    Args:
        subscriptions: the client's.
        access: verifies its next tokens.
        admission: by its first token.
        rights: tells who may have a topic; None without a query.
        set_expiry: is called with the time at which the connection is to be closed, in Unix seconds; None for never.
        clock: seconds on a monotonic clock.
        other_keys: by which a topic may be named, besides `match_id`.
    """

    def __init__(
        self,
        subscriptions: WatchedSubscriptions,
        access: AccessControl,
        admission: Admission,
        *,
        rights: MatchRights | None,
        set_expiry: Callable[[float | None], None],
        clock: Callable[[], float] = time.monotonic,
        other_keys: tuple[str, ...] = (),
    ) -> None:
        self._keys, self._decode = (MATCH_ID, *other_keys), _decoder(other_keys).decode
        self._subscriptions, self._access, self._rights = subscriptions, access, rights
        self._claims, self._address = admission.claims, admission.address
        self._set_expiry = set_expiry
        self._bucket = TokenBucket(MAX_SUBSCRIPTIONS, REQUESTS_PER_SECOND, clock)
        self._answer = subscriptions.answer
        self._heard = subscriptions.client.subscriptions
        self._checks: dict[Topic, asyncio.Task[None]] = {}  # of rights, by topic
        self._waiting: dict[Topic, EventId | None] = {}  # the topics that begin if their check says so, with their ids

    def on_text(self, text: str) -> None:
        """Do what a message from the client asks for."""
        try:
            request = self._decode(text)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or no such object
            self._answer(refused(*_NO_REQUEST))
            return
        match request.type:
            case "subscribe":
                self._subscribe(self._topic(request), _event_id(request.last_event_id))
            case "unsubscribe":
                self._unsubscribe(self._topic(request))
            case "token":
                self._renew(_string(request.token))
            case "pong":
                pass
            case _:
                self._answer(refused(*_NO_REQUEST))

    def _topic(self, request: Any) -> Topic | None:
        """Return the one topic that a request names; None if it names none, or several."""
        named = [(key, value) for key in self._keys if (value := bytes(getattr(request, key))) != NULL]
        texts = [(key, match_from_json(value)) for key, value in named]
        match texts:
            case [(key, str(text))]:
                return topic_of(key, text)
        return None

    @property
    def _no_topic(self) -> tuple[str, str]:
        one_of = "" if len(self._keys) == 1 else "one of "
        return "malformed", f"{one_of}{', '.join(self._keys)} has to be a string or a number"

    async def aclose(self) -> None:
        """Cancel the checks that still run."""
        await cancel_tasks(self._checks.values())

    def _subscribe(self, topic: Topic | None, last: EventId | None) -> None:
        if topic is None:
            self._answer(refused(*self._no_topic))
        elif not self._bucket.take():
            self._answer(refused(*_TOO_FAST, topic))
        elif not self._claims.allow(topic):
            self._answer(refused(*FORBIDDEN, topic))
        elif len({*self._heard, *self._waiting, topic}) > MAX_SUBSCRIPTIONS:
            self._answer(refused(*_TOO_MANY, topic))
        else:
            self._begin(topic, last)

    def _begin(self, topic: Topic, last: EventId | None) -> None:
        if self._rights is None:
            self._subscriptions.start([(topic, last)], self._claims.text)
        else:
            self._check(topic, self._begin_if_allowed(self._rights, topic, last))
            self._waiting[topic] = last

    async def _begin_if_allowed(self, rights: MatchRights, topic: Topic, last: EventId | None) -> None:
        claims = self._claims.text
        verdict = await rights.check(topic, claims, self._address)
        self._waiting.pop(topic, None)
        if verdict is Verdict.ALLOWED:
            self._subscriptions.start([(topic, last)], claims)
        else:
            self._answer(refused(*(FORBIDDEN if verdict is Verdict.REFUSED else UNAVAILABLE), topic))

    def _unsubscribe(self, topic: Topic | None) -> None:
        if topic is None:
            self._answer(refused(*self._no_topic))
            return
        self._stop_check(topic)
        self._subscriptions.end(topic)
        self._answer(unsubscribed(topic))

    # ---- another token

    def _renew(self, token: str) -> None:
        if not self._bucket.take():
            self._answer(refused("token", _TOO_FAST[1]))
            return
        try:
            self._claims = self._access.renew(self._claims, token)
        except TokenError as error:
            self._answer(refused("token", str(error)))
            return
        self._set_expiry(self._claims.expires)
        heard, waiting = set(self._heard), dict(self._waiting)
        for topic in list(self._checks):
            self._stop_check(topic)
        begins = dict(waiting)
        if self._subscriptions.renew(self._claims.owner, self._claims.text):
            self._bucket.charge(len(heard))
            begins = dict.fromkeys(heard) | waiting
        self._answer(RENEWED)
        for topic in {*heard, *waiting}:
            if not self._claims.allow(topic):
                self._subscriptions.end(topic)
                self._answer(refused(*FORBIDDEN, topic))
            elif topic in begins:
                self._begin(topic, begins[topic])
            elif self._rights is not None:
                self._check(topic, self._end_if_refused(self._rights, topic))

    async def _end_if_refused(self, rights: MatchRights, topic: Topic) -> None:
        claims = self._claims.text
        if await rights.check(topic, claims, self._address) is Verdict.REFUSED:
            self._subscriptions.end(topic)
            self._answer(refused(*FORBIDDEN, topic))
        else:
            self._subscriptions.watch(topic, claims)  # where it can't be found out now, it is asked again

    # ---- checks

    def _check(self, topic: Topic, work: Coroutine[None, None, None]) -> None:
        self._stop_check(topic)
        task = self._checks[topic] = start_task(work, "a bug left a request of a client without an answer")

        def end(task: asyncio.Task[None]) -> None:
            if self._checks.get(topic) is task:
                del self._checks[topic]

        task.add_done_callback(end)

    def _stop_check(self, topic: Topic) -> None:
        self._waiting.pop(topic, None)
        if task := self._checks.pop(topic, None):
            task.cancel()


def _string(value: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except ValueError:
        return ""


def _event_id(value: msgspec.Raw) -> EventId | None:
    """Return the last id that the client has; None if it sends none, or one that is not an id."""
    try:
        return EventId.parse(_string(value))
    except ValueError:
        return None
