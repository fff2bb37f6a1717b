"""The web side's composition root: settings become an ASGI application. `gunicorn` runs `app.main:app`."""

from starlette.applications import Starlette

from app.core.config import Settings, load_settings
from app.core.postgres import OperatorError, database_url
from app.web import application
from app.websocket_manager import MatchDataWebSocketManager


def compose(settings: Settings) -> Starlette:
    """The application that the settings describe.

    Raises:
        OperatorError: they describe none.
    """
    db_url = database_url(settings) if settings.db_host else None
    try:
        manager = MatchDataWebSocketManager(
            db_url, settings.use_redis_notifier, settings.redis_url.get_secret_value(), settings=settings
        )
    except ValueError as error:
        raise OperatorError(str(error)) from None
    return application(manager, settings.ping_interval)


def app() -> Starlette:
    """The application, composed when a worker starts (uvicorn calls it: `factory`)."""
    return compose(load_settings())
