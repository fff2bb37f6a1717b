"""The documentation and the code blocks in it."""

import re
from pathlib import Path

from tests.support.process import ROOT

README, PROTOCOL, OPERATIONS = ROOT / "README.md", ROOT / "docs/protocol.md", ROOT / "docs/operations.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks in one language."""
    return [text for kind, text in _FENCED.findall(document.read_text(encoding="utf-8")) if kind == language]


def block(document: Path, language: str, containing: str) -> str:
    """Return the only code block in a language that contains a text."""
    [found] = [text for text in blocks(document, language) if containing in text]
    return found


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return _FENCED.sub("", document.read_text(encoding="utf-8"))
