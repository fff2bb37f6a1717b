"""The address of Redis that the settings name."""

from redis.exceptions import ConnectionError as RedisConnectionError

from app.core.config import Settings
from app.core.settings_sources import SettingsError, read_secret
from notifymux.redis_client import RedisAddress
from notifymux.redis_keys import RedisNames


def redis_address(settings: Settings) -> RedisAddress:
    """Return the address, for all connections of one process that have to lead to the same server.

    The URL is read anew for each connection where REDIS_URL_FILE names its file: an operator rotates a password without
    a restart. A file that can't be read any longer is an outage.
    """
    path, key = settings.redis_url_file, RedisNames(settings.redis_namespace).log
    if path is None:
        return RedisAddress(settings.redis_url.get_secret_value(), key)

    def read() -> str:
        try:
            return read_secret("REDIS_URL", path)
        except SettingsError as error:
            raise RedisConnectionError(str(error)) from None

    return RedisAddress(read, key)
