"""The results as a table and as JSON."""

import json
from collections.abc import Sequence

from listener.verify.result import Check, CheckStatus

_SYMBOLS = {CheckStatus.OK: "✓", CheckStatus.WARNING: "⚠", CheckStatus.FAILED: "✗"}


def is_ok(checks: Sequence[Check]) -> bool:
    """Whether no check failed."""
    return all(check.status is not CheckStatus.FAILED for check in checks)


def as_table(checks: Sequence[Check]) -> str:
    """One line for each check, a remedy below the last of the checks that share it, and a last line with the counts."""
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
    """All checks as one JSON object."""
    listed = [
        {"check": check.name, "status": check.status.value, "text": check.text, "remedy": check.remedy}
        for check in checks
    ]
    return json.dumps({"ok": is_ok(checks), "checks": listed}, indent=2)


def _printable(text: str) -> str:
    """Replace control characters: names come from the servers, and a terminal would obey them."""
    return "".join(character if character.isprintable() else "?" for character in text)
