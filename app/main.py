"""The ASGI application, `app.main:app`, for any server. An import reads the settings and composes a worker."""

from app.composition import compose_or_exit
from app.core.config import load_queries_or_exit, load_settings_or_exit

app = compose_or_exit(load_settings_or_exit(), load_queries_or_exit())
