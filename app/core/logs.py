"""Log lines on standard output: a timestamp, the program, the level and one sentence; as text or as JSON."""

import logging
import logging.config
import sys
import time
from typing import Any

import msgspec

from app.core.config import Settings


class _TextFormatter(logging.Formatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self, program: str) -> None:
        super().__init__(f"%(asctime)s {program} %(levelname)s %(message)s")
        self._program = program


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
        return msgspec.json.encode(line).decode()


def logging_config(program: str, settings: Settings) -> dict[str, Any]:
    """A `logging.config.dictConfig` dictionary for `program`, for who configures logging itself (gunicorn)."""
    formatter = _JsonFormatter if settings.log_format == "json" else _TextFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "program": program}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stdout"]},
    }


def configure_logging(program: str, settings: Settings) -> None:
    """Sends this process's log lines to standard output."""
    logging.config.dictConfig(logging_config(program, settings))
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("a bug ended this process", exc_info=(kind, error, trace))
