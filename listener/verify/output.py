"""The results, for people and for programs."""

import json
from collections.abc import Sequence

from listener.verify.result import Check, CheckStatus

_SYMBOLS = {CheckStatus.OK: "✓", CheckStatus.WARNING: "⚠", CheckStatus.FAILED: "✗"}


def is_ok(checks: Sequence[Check]) -> bool:
    """Whether none failed."""
    return all(check.status is not CheckStatus.FAILED for check in checks)


def as_table(checks: Sequence[Check]) -> str:
    """One line for each check, and what to do under those it is the same for; the last line counts."""
    width = max(len(_printable(check.name)) for check in checks)
    lines = []
    for check, following in zip(checks, [*checks[1:], None], strict=True):
        lines.append(f"{_SYMBOLS[check.status]} {_printable(check.name):{width}}  {_printable(check.text)}")
        if check.remedy and not (following and following.remedy == check.remedy):
            lines.append(f"  {'':{width}}  → {_printable(check.remedy)}")
    counts = [f"{sum(check.status is status for check in checks)} {symbol}" for status, symbol in _SYMBOLS.items()]
    lines += ["", "  ".join(counts)]
    return "\n".join(lines)


def as_json(checks: Sequence[Check]) -> str:
    """The same as one JSON object."""
    listed = [
        {"check": check.name, "status": check.status.value, "text": check.text, "remedy": check.remedy}
        for check in checks
    ]
    return json.dumps({"ok": is_ok(checks), "checks": listed}, indent=2)


def _printable(text: str) -> str:
    """Names come from the servers, and a terminal obeys control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)
