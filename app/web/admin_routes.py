"""The routes for operators: the status, once and as a stream, and the metrics."""

import asyncio
import time
from functools import partial

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.broadcast.client import CloseCode
from app.broadcast.messages import Message
from app.core.metrics import render
from app.core.tasks import cancel_tasks
from app.monitoring.status import Status, Watcher
from app.monitoring.worker_metrics import WorkerMetrics
from app.web.access_control import AccessControl, try_later
from app.web.transports import EventStreamTransport

_MAX_STREAMS = 20  # of one worker
_INTERVAL_SECONDS = 1.0  # between two messages of a stream
_SEND_TIMEOUT_SECONDS = 10.0
_NO_STORE = {"cache-control": "no-store"}


class AdminRoutes:
    """The routes for operators.

    Args:
        status: the status of this worker and what it knows of the others.
        metrics: the metrics of this worker.
        access: authorizes operators.
    """

    def __init__(self, status: Status, metrics: WorkerMetrics, access: AccessControl) -> None:
        self._status, self._metrics, self._access = status, metrics, access
        self._streams = asyncio.Semaphore(_MAX_STREAMS)
        # One at a time, for all who ask meanwhile: it goes on for those that have left.
        self._rendering: asyncio.Task[bytes] | None = None

    def routes(self, status_page: bool) -> list[BaseRoute]:
        """Return all routes; those of the status only if `status_page`."""
        status = [Route("/api/status", self.status), Route("/api/status/events", self.status_events, methods=["GET"])]
        return [Route("/metrics", self.metrics), *(status if status_page else [])]

    async def metrics(self, request: Request) -> Response:
        """Respond with the metrics of all processes of this pod."""
        self._access.authorize_operator(request)
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.create_task(asyncio.to_thread(render, self._metrics.registry))
        text = await asyncio.shield(self._rendering)  # which others may wait for
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=_NO_STORE)

    async def status(self, request: Request) -> Response:
        """Respond with the status."""
        self._access.authorize_operator(request)
        await self._status.refresh()
        return Response(self._status.message(), media_type="application/json", headers=_NO_STORE)

    async def status_events(self, request: Request) -> ASGIApp:
        """Respond with the status once a second, as server-sent events."""
        return partial(self._stream, request)

    async def _stream(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        expires = self._access.authorize_operator(request)
        if self._streams.locked():
            raise try_later(f"{_MAX_STREAMS} watch already")
        query = request.query_params
        async with self._streams:
            with self._status.watch(query.get("channel"), query.get("match")) as watcher:
                await self._status.refresh()
                await self._send_status(watcher, EventStreamTransport(scope, receive, send), expires)

    async def _send_status(self, watcher: Watcher, transport: EventStreamTransport, expires: float | None) -> None:
        disconnected = asyncio.create_task(transport.receive())
        try:
            await transport.begin([])
            while not disconnected.done() and (expires is None or time.time() < expires):
                async with asyncio.timeout(_SEND_TIMEOUT_SECONDS):
                    await transport.send([Message(watcher.message())])
                await asyncio.wait([disconnected], timeout=_INTERVAL_SECONDS)
            async with asyncio.timeout(_SEND_TIMEOUT_SECONDS):
                await transport.close(CloseCode.EXPIRED)
        except TimeoutError:
            transport.abort()
        finally:
            await cancel_tasks([disconnected])
