"""`python -S -m app.appliance.supervision.output_relay COMMAND ...` runs COMMAND and passes its output on.

supervisord waits whenever its standard output is not read, and all its programs wait for it. The relay always reads:
what nobody takes from it, it drops beyond `_KEPT_BYTES`, and counts. It passes signals on to COMMAND, reaps orphans (it
is the container's first process), and ends with COMMAND's exit code.
"""

import os
import select
import signal
import sys

from app.core.bounded_writer import BoundedWriter

_KEPT_BYTES = 4 << 20  # of output that nobody has read yet
_MAX_LINE_BYTES = 1 << 16  # a longer line is passed on in parts
_DRAIN_TIMEOUT_SECONDS = 1.0  # at the end, for the last lines
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(command: list[str]) -> int:
    """Run `command`, with standard error in its standard output; return its exit code."""
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # `woken` becomes readable
    output, writing = os.pipe2(os.O_CLOEXEC)
    relay, child = os.getpid(), os.fork()
    if child == 0:
        _become(command, writing, relay)
    os.close(writing)
    for forwarded in _FORWARDED:
        signal.signal(forwarded, lambda number, _: os.kill(child, number))
    writer = BoundedWriter(sys.stdout.fileno(), _dropped_text, _KEPT_BYTES)
    code = _relay(output, woken, child, writer)
    if code is None:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    writer.drain(_DRAIN_TIMEOUT_SECONDS)
    return code if code >= 0 else 128 - code


def _become(command: list[str], output: int, relay: int) -> None:
    """Become `command`, which ends when the relay dies."""
    from app.appliance.supervision.parent_death import terminate_with_parent  # noqa: PLC0415 - its ctypes, not here

    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    terminate_with_parent(relay)
    try:
        os.execvp(command[0], command)  # noqa: S606 - entrypoint.sh's words, and no shell
    except OSError as error:
        os.write(2, f"notifymux: {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)  # as a shell does


def _relay(output: int, woken: int, child: int, writer: BoundedWriter) -> int | None:
    """Pass the output on until it ends, or the child has ended; return the child's exit code if it is known."""
    code: int | None = None
    rest = b""
    while True:
        ready = select.select([output, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            code = _reap(child, code)
        if output in ready:
            data = os.read(output, _MAX_LINE_BYTES)
            if not data:
                break
            lines, line_break, rest = (rest + data).rpartition(b"\n")
            if len(rest) > _MAX_LINE_BYTES:
                lines, line_break, rest = lines + line_break + rest, b"", b""
            if lines or line_break:
                writer.put(lines + line_break)
        elif code is not None:
            break  # an orphan that still has the pipe open keeps nobody waiting
    if rest:
        writer.put(rest)
    return code


def _reap(child: int, code: int | None) -> int | None:
    """Reap whoever has ended; return the child's exit code once it has."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass  # nobody is left
    return code


def _dropped_text(lines: int) -> bytes:
    return b"notifymux: %d lines were dropped here, because nobody read this output\n" % lines


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # the writer's thread may still wait for a reader
