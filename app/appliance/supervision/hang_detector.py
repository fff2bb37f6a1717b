"""Which programs run without doing their job. No clock and no files: times are seconds on any monotonic clock."""

from collections.abc import Hashable

SILENT = 20.0  # seconds without a sign of life
PAUSED = 5.0  # seconds between two looks, after which it is this one that was paused, perhaps with everybody


class HangDetector:
    """Watches signs that change as long as their programs are well."""

    def __init__(self) -> None:
        self._signs: dict[str, tuple[Hashable, float]] = {}  # each program's last one, and when it was new
        self._looked: float | None = None

    def look(self, signs: dict[str, Hashable], now: float) -> list[str]:
        """The programs whose sign has been the same for too long; each starts anew once it is told.

        Args:
            signs: for every program that is to show one, what it shows; any change is a sign of life.
            now: the time.
        """
        paused = self._looked is not None and now - self._looked > PAUSED
        self._looked = now
        before = {} if paused else self._signs
        self._signs = {}
        silent = []
        for program, sign in signs.items():
            shown, since = before.get(program, (None, now))
            if shown != sign:
                since = now
            if now - since >= SILENT:
                silent.append(program)
                since = now
            self._signs[program] = sign, since
        return silent
