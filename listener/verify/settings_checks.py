"""The checks of the settings themselves; what can't be right has ended the program before."""

from app.core import setting_names
from app.core.config import Settings
from app.core.settings_sources import servers_given
from app.core.settings_types import MAKE_A_PUBLIC_KEY, MAKE_A_SECRET, MIN_SECRET_BYTES
from listener.verify.result import Check, passed, warned


def names() -> Check:
    """Whether a name in the environment or in `.env` is nearly a setting's."""
    name, found = "settings", setting_names.warnings()
    if found:
        return warned(name, "; ".join(found), "correct the name, or remove it")
    return passed(name, "no name is nearly a setting's")


def tokens(settings: Settings) -> Check:
    """Whether clients need a token, and what verifies it."""
    name, secret = "tokens", settings.ws_jwt_secret
    if secret and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        return warned(
            name, f"WS_JWT_SECRET is shorter than {MIN_SECRET_BYTES} bytes, and can be guessed", MAKE_A_SECRET
        )
    if secret:
        return passed(name, "clients need one, signed with WS_JWT_SECRET (HS256)")
    if settings.ws_jwt_public_key:
        return passed(name, "clients need one that WS_JWT_PUBLIC_KEY verifies (RS256)")
    if not servers_given():
        return passed(name, "the demo's clients need none")
    return warned(
        name,
        "clients need none: whoever reaches the port hears every match",
        f"set WS_JWT_SECRET ({MAKE_A_SECRET}), or WS_JWT_PUBLIC_KEY (openssl genrsa -out private.pem 3072 makes a key,"
        f" and {MAKE_A_PUBLIC_KEY})",
    )
