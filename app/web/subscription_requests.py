"""What a client of many matches asks for: to hear one, to hear no more of it, to go on with a new token."""

import asyncio
import time
from collections.abc import Callable, Coroutine

import msgspec

from app.broadcast.match_id import match_from_json
from app.broadcast.match_rights import MatchRights, Verdict
from app.broadcast.messages import RENEWED, refused, unsubscribed
from app.core.tasks import cancel_tasks, start_task
from app.web.access_control import AccessControl, Admission
from app.web.token_bucket import TokenBucket
from app.web.tokens import TokenError
from app.web.watched_subscriptions import FORBIDDEN, UNAVAILABLE, WatchedSubscriptions
from notifymux.event import EventId

MAX_SUBSCRIPTIONS = 128  # of a connection; as many requests are within the rate at once
REQUESTS_PER_SECOND = 10.0

_TOO_MANY = "too-many", f"a connection may have {MAX_SUBSCRIPTIONS} subscriptions"
_TOO_FAST = "too-fast", f"more than {REQUESTS_PER_SECOND:g} requests a second: try again in a second"
_NO_REQUEST = "malformed", "this is no JSON object with a type that is known"
_NO_MATCH = "malformed", "match_id has to be a string or a number"


class _Request(msgspec.Struct, gc=False):
    """A request, with what any of them may carry."""

    type: str
    match_id: msgspec.Raw = msgspec.Raw(b"null")
    last_event_id: msgspec.Raw = msgspec.Raw(b"null")
    token: msgspec.Raw = msgspec.Raw(b"null")


_request = msgspec.json.Decoder(_Request)


class SubscriptionRequests:
    """Does what a client asks for, and answers it. A request that is refused changes nothing.

    Args:
        subscriptions: the client's.
        access: verifies its next tokens.
        admission: by its first token.
        rights: tells who may have a match; None without a query.
        set_expiry: is called with the time at which the connection is to be closed, in Unix seconds; None for never.
        clock: seconds on a monotonic clock.
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
    ) -> None:
        self._subscriptions, self._access, self._rights = subscriptions, access, rights
        self._claims, self._address = admission.claims, admission.address
        self._set_expiry = set_expiry
        self._bucket = TokenBucket(MAX_SUBSCRIPTIONS, REQUESTS_PER_SECOND, clock)
        self._answer = subscriptions.answer
        self._heard = subscriptions.client.subscriptions
        self._checks: dict[str, asyncio.Task[None]] = {}  # of rights, by match
        self._waiting: dict[str, EventId | None] = {}  # the matches that begin if their check says so, with their ids

    def on_text(self, text: str) -> None:
        """Do what a message from the client asks for."""
        try:
            request = _request.decode(text)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or no such object
            self._answer(refused(*_NO_REQUEST))
            return
        match request.type:
            case "subscribe":
                self._subscribe(match_from_json(bytes(request.match_id)), _event_id(request.last_event_id))
            case "unsubscribe":
                self._unsubscribe(match_from_json(bytes(request.match_id)))
            case "token":
                self._renew(_string(request.token))
            case "pong":
                pass
            case _:
                self._answer(refused(*_NO_REQUEST))

    async def aclose(self) -> None:
        """Cancel the checks that still run."""
        await cancel_tasks(self._checks.values())

    def _subscribe(self, match: str | None, last: EventId | None) -> None:
        if match is None:
            self._answer(refused(*_NO_MATCH))
        elif not self._bucket.take():
            self._answer(refused(*_TOO_FAST, match))
        elif not self._claims.allow(match):
            self._answer(refused(*FORBIDDEN, match))
        elif len({*self._heard, *self._waiting, match}) > MAX_SUBSCRIPTIONS:
            self._answer(refused(*_TOO_MANY, match))
        else:
            self._begin(match, last)

    def _begin(self, match: str, last: EventId | None) -> None:
        if self._rights is None:
            self._subscriptions.start([(match, last)], self._claims.text)
        else:
            self._check(match, self._begin_if_allowed(self._rights, match, last))
            self._waiting[match] = last

    async def _begin_if_allowed(self, rights: MatchRights, match: str, last: EventId | None) -> None:
        claims = self._claims.text
        verdict = await rights.check(match, claims, self._address)
        self._waiting.pop(match, None)
        if verdict is Verdict.ALLOWED:
            self._subscriptions.start([(match, last)], claims)
        else:
            self._answer(refused(*(FORBIDDEN if verdict is Verdict.REFUSED else UNAVAILABLE), match))

    def _unsubscribe(self, match: str | None) -> None:
        if match is None:
            self._answer(refused(*_NO_MATCH))
            return
        self._stop_check(match)
        self._subscriptions.end(match)
        self._answer(unsubscribed(match))

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
        for match in list(self._checks):
            self._stop_check(match)
        begins = dict(waiting)
        if self._subscriptions.renew(self._claims.owner, self._claims.text):
            self._bucket.charge(len(heard))
            begins = dict.fromkeys(heard) | waiting
        self._answer(RENEWED)
        for match in {*heard, *waiting}:
            if not self._claims.allow(match):
                self._subscriptions.end(match)
                self._answer(refused(*FORBIDDEN, match))
            elif match in begins:
                self._begin(match, begins[match])
            elif self._rights is not None:
                self._check(match, self._end_if_refused(self._rights, match))

    async def _end_if_refused(self, rights: MatchRights, match: str) -> None:
        claims = self._claims.text
        if await rights.check(match, claims, self._address) is Verdict.REFUSED:
            self._subscriptions.end(match)
            self._answer(refused(*FORBIDDEN, match))
        else:
            self._subscriptions.watch(match, claims)  # where it can't be found out now, it is asked again

    # ---- checks

    def _check(self, match: str, work: Coroutine[None, None, None]) -> None:
        self._stop_check(match)
        task = self._checks[match] = start_task(work, "a bug left a request of a client without an answer")

        def end(task: asyncio.Task[None]) -> None:
            if self._checks.get(match) is task:
                del self._checks[match]

        task.add_done_callback(end)

    def _stop_check(self, match: str) -> None:
        self._waiting.pop(match, None)
        if task := self._checks.pop(match, None):
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
