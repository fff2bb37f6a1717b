"""The documentation and the code blocks in it."""

import re
from pathlib import Path

from tests.support.process import ROOT

README, CONTRIBUTING, DOCS = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs"
DEPLOYMENT, MIGRATION, OPERATIONS = DOCS / "deployment.md", DOCS / "migration.md", DOCS / "operations.md"
PROTOCOL, PYTHON, SETTINGS = DOCS / "protocol.md", DOCS / "python.md", DOCS / "settings.md"
TRIGGERS = DOCS / "triggers.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench/README.md"])
DEPLOYED = sorted((DOCS / "deploy").glob("*.yaml"))

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


def flat(document: Path) -> str:
    """A document as one line."""
    return " ".join(document.read_text(encoding="utf-8").split())


def section(document: Path, title: str) -> str:
    """What is below one heading of the second level."""
    _, found, text = document.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    assert found, title
    return text.partition("\n## ")[0]
