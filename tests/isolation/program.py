"""The application with a callback that awaits one second per event."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette

from app.composition import compose
from app.core.config import load_settings
from notifymux.redis_keys import RedisNames
from notifymux.redis_notifier import RedisNotifierService
from tests.isolation.load import CHANNEL


async def callback(_: str, __: Any) -> None:
    await asyncio.sleep(1)


def with_callback() -> Starlette:
    """Create the application that gunicorn serves."""
    settings = load_settings()
    application = compose(settings)
    own_lifespan = application.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        names = RedisNames(settings.redis_namespace)
        service = RedisNotifierService(settings.redis_url.get_secret_value(), names.events)
        await service.connect()
        service.register_callback(CHANNEL, callback)
        await service.subscribe()
        loop = asyncio.create_task(service.listen_loop())
        async with own_lifespan(application) as state:
            yield state
        await service.disconnect()
        await loop

    application.router.lifespan_context = lifespan
    return application


app = with_callback()
