"""The doors for operators: the status, once and live, and the metrics."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.broadcast.messages import Message
from app.core.metrics import exposition
from app.monitoring.status import Status, Watcher
from app.monitoring.worker_metrics import WorkerMetrics
from app.web.access_control import AccessControl, Rejected
from app.web.transports import EventStreamTransport

_WATCHERS = 20  # of one worker
_EVERY = 1.0  # seconds between two messages
_TAKE_WITHIN = 10.0  # seconds a watcher may take for one
_NO_STORE = {"cache-control": "no-store"}


class AdminRoutes:
    """Shows operators how it goes.

    Args:
        status: what is shown.
        metrics: the same for Prometheus.
        admission: lets operators in.
    """

    def __init__(self, status: Status, metrics: WorkerMetrics, admission: AccessControl) -> None:
        self._status, self._metrics, self._admission = status, metrics, admission
        self._watchers = 0

    def routes(self, status_page: bool) -> list[BaseRoute]:
        """Every door; those to the status only if `status_page`."""
        status = [Route("/api/status", self.status), Route("/api/status/events", self.events, methods=["GET"])]
        return [Route("/metrics", self.metrics), *(status if status_page else [])]

    async def metrics(self, request: Request) -> Response:
        """The metrics of every process of this pod."""
        try:
            self._admission.admit_operator(request)
        except Rejected as refusal:
            return refusal.response()
        text = await asyncio.to_thread(exposition, self._metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=_NO_STORE)

    async def status(self, request: Request) -> Response:
        """The status, once."""
        try:
            self._admission.admit_operator(request)
        except Rejected as refusal:
            return refusal.response()
        await self._status.refresh()
        return Response(self._status.message(), media_type="application/json", headers=_NO_STORE)

    async def events(self, request: Request) -> ASGIApp:
        """The status, once a second, as server-sent events."""

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            query = request.query_params
            try:
                expires = self._admission.admit_operator(request)
                with self._place(), self._status.watch(query.get("channel"), query.get("match")) as watcher:
                    await self._status.refresh()
                    await self._show(watcher, EventStreamTransport(scope, receive, send), expires)
            except Rejected as refusal:
                await refusal.response()(scope, receive, send)

        return stream

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._watchers >= _WATCHERS:
            wait = str(random.randint(1, 10))  # noqa: S311 - spreads a crowd
            raise Rejected(503, f"{_WATCHERS} watch already", {"retry-after": wait})
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def _show(self, watcher: Watcher, wire: EventStreamTransport, expires: float | None) -> None:
        gone = asyncio.ensure_future(wire.receive())
        try:
            await wire.begin([])
            while not gone.done() and (expires is None or time.time() < expires):
                async with asyncio.timeout(_TAKE_WITHIN):
                    await wire.send([Message(watcher.message())])
                await asyncio.wait([gone], timeout=_EVERY)
            async with asyncio.timeout(_TAKE_WITHIN):
                await wire.close(0, "")
        except TimeoutError:
            wire.abort()
        finally:
            gone.cancel()
            await asyncio.wait([gone])
