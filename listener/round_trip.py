"""How long a listener's own canary takes through PostgreSQL and back."""

from collections import deque
from collections.abc import Iterable

from app.core.config import MUX_CHANNEL
from app.core.postgres import Notification


class RoundTripTimer:
    """Times one canary at a time. Clock times are Unix seconds."""

    def __init__(self) -> None:
        self.last: float | None = None  # seconds
        self.fresh: deque[float] = deque(maxlen=100)  # those that nobody has taken yet
        self._token = b""
        self._sent = 0.0

    def sent(self, token: str, at: float) -> None:
        """Notes that a canary was sent."""
        self._token, self._sent = f'"{token}"'.encode(), at

    def heard(self, notifications: Iterable[Notification], at: float) -> None:
        """Looks for it among what came at a time."""
        if not self._token:
            return
        for channel, payload in notifications:
            if channel == MUX_CHANNEL and self._token in payload:
                self.last = max(0.0, at - self._sent)
                self.fresh.append(self.last)
                self._token = b""

    def lost(self) -> None:
        """The session is lost, and what was sent on it."""
        self._token, self.last = b"", None
