"""The web side's composition root: settings become an ASGI application. `gunicorn` runs `app.main:app`."""

from starlette.applications import Starlette

from app.admission import Admission, Limits
from app.core.config import Settings, load_settings
from app.core.postgres import OperatorError, database_url
from app.tokens import Tokens
from app.web import Doors, application
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
    admission = Admission(_tokens(settings), settings.allowed_origins, _limits(settings))
    doors = Doors(manager, admission, settings.allowed_origins, settings.ping_interval)
    return application(manager, doors)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_clients, settings.max_clients_per_address)


def _tokens(settings: Settings) -> Tokens | None:
    if settings.ws_jwt_secret:
        return Tokens(settings.ws_jwt_secret.get_secret_value(), "HS256")
    if settings.ws_jwt_public_key:
        return Tokens(settings.ws_jwt_public_key.get_secret_value(), "RS256")
    return None


def app() -> Starlette:
    """The application, composed when a worker starts (uvicorn calls it: `factory`)."""
    return compose(load_settings())
