"""Log lines: a timestamp, the program, the level and one sentence; as text or as JSON.

They go to standard output; under supervisord to standard error, which it passes on, and to standard output as well, of
which it keeps the last for `supervisorctl tail`. No program waits for whoever reads them (`app.core.bounded_writer`).
"""

import json
import logging
import logging.config
import os
import sys
import time
from typing import Any

from app.core.bounded_writer import BoundedWriter
from notifymux.printable import printable

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_DESCRIPTORS = {"stdout": 1, "stderr": 2}
_FLUSH_TIMEOUT_SECONDS = 0.5  # at exit, for the last lines


class _TextFormatter(logging.Formatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self, program: str) -> None:
        super().__init__(f"%(asctime)s {program} %(levelname)s %(message)s")
        self._program = program

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Format all but the traceback, on one line: what strangers send must not act on the terminal that shows it."""
        return printable(super().formatMessage(record))


class _JsonFormatter(_TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "program": self._program,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, separators=(",", ":"))


class LineHandler(logging.Handler):
    """Writes lines in a thread of its own, which each process starts with its first line."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._writer: BoundedWriter | None = None
        self._pid = 0  # of the process that the writer's thread runs in: a fork does not copy threads

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._writer is None or self._pid != os.getpid():
            self._pid, self._writer = os.getpid(), BoundedWriter(self._descriptor, self._dropped_text)
        try:
            self._writer.put(self._line(record))
        except Exception:  # noqa: BLE001 - as in logging's own handlers: a record with a bug ends no program
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, for a moment; logging calls it at exit."""
        if self._writer and self._pid == os.getpid():
            self._writer.drain(_FLUSH_TIMEOUT_SECONDS)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _dropped_text(self, lines: int) -> bytes:
        text = f"{lines} lines were dropped here, because nobody read this output"
        return self._line(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))


def logging_config(program: str, level: str, form: str, *, to_stdout: bool = True) -> dict[str, Any]:
    """Return a `logging.config.dictConfig` dictionary, for gunicorn, which configures logging itself."""
    streams = ["stdout"] if to_stdout else []
    if "SUPERVISOR_ENABLED" in os.environ:
        streams.append("stderr")
    formatter = _JsonFormatter if form == "json" else _TextFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "program": program}},
        "handlers": {
            name: {"()": LineHandler, "descriptor": _DESCRIPTORS[name], "formatter": "line"} for name in streams
        },
        "root": {"level": level.upper(), "handlers": streams},
    }


def configure_logging(program: str, level: str, form: str, *, to_stdout: bool = True) -> None:
    """Log this process's lines under the name `program`, and the exception that ends it.

    `to_stdout` is False for a program whose standard output carries another protocol.
    """
    logging.config.dictConfig(logging_config(program, level, form, to_stdout=to_stdout))
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("a bug ended this process", exc_info=(kind, error, trace))
