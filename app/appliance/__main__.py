"""`python -m app.appliance prepare|keeper|postgres|valkey|demo|welcome|alive|ready`."""

import pkgutil
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends every command without a traceback, also during imports

from app.appliance import ApplianceError  # noqa: E402 - see above

# Each command imports its own module only: it starts sooner and takes less memory.
_COMMANDS = {
    "prepare": "app.appliance.prepare:main",
    "keeper": "app.appliance.supervision.watchdog_guard:main",
    "postgres": "app.appliance.embedded.postgres:main",
    "valkey": "app.appliance.embedded.valkey:main",
    "demo": "app.appliance.demo.player:main",
    "welcome": "app.appliance.startup_banner:main",
    "alive": "app.appliance.health_check:alive",
    "ready": "app.appliance.health_check:ready",
}


def main(arguments: list[str]) -> None:
    """Run the command that `arguments` name; an error that the user can fix is one line and exit code 2."""
    function = _COMMANDS.get(" ".join(arguments))
    if function is None:
        sys.exit(f"usage: python -m app.appliance {'|'.join(_COMMANDS)}")
    try:
        pkgutil.resolve_name(function)()
    except ApplianceError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
