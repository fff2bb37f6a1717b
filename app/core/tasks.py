"""Background tasks: started so that a bug in one is logged, and ended together."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

logger = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 0.25


def start_task(work: Coroutine[Any, Any, None], failure: str) -> asyncio.Task[None]:
    """Start `work` as a task that is not awaited; if it raises, log `failure` with the traceback at once.

    asyncio itself reports such an exception only when the task is garbage collected.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(partial(_log_failure, failure))
    return task


def _log_failure(failure: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical(failure, exc_info=error)


async def cancel_tasks(tasks: Iterable[asyncio.Task[Any]]) -> list[Exception]:
    """Cancel tasks and wait until all have ended; return the exceptions that some ended with.

    A task that goes on is cancelled again: a driver may swallow a cancellation, if what it awaits completes at the same
    time.
    """
    cancelled = list(tasks)
    pending = set(cancelled)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    results = await asyncio.gather(*cancelled, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]
