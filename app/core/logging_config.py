"""Log lines: a timestamp, the program, the level and one sentence; as text or as JSON.

They go to standard output; under supervisord to standard error, which it passes on, and to standard output as well, of
which it keeps the last for `supervisorctl tail`.
"""

import json
import logging
import logging.config
import os
import sys
import time
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


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
        return json.dumps(line, separators=(",", ":"))


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
            name: {"class": "logging.StreamHandler", "stream": f"ext://sys.{name}", "formatter": "line"}
            for name in streams
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
