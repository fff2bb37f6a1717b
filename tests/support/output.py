"""Output of long-running tests."""

import sys


def print_line(line: str) -> None:
    """Print a line immediately, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
