"""`python -m app.appliance prepare|keeper|postgres|valkey|demo|welcome|ready`."""

import importlib
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends every command without a traceback, also during imports

from app.appliance import ApplianceError  # noqa: E402 - see above

# Each command imports its own module only: it starts sooner and takes less memory.
_MODULES = {
    "prepare": "app.appliance.prepare",
    "keeper": "app.appliance.supervision.watchdog_guard",
    "postgres": "app.appliance.embedded.postgres",
    "valkey": "app.appliance.embedded.valkey",
    "demo": "app.appliance.demo.player",
    "welcome": "app.appliance.startup_banner",
    "ready": "app.appliance.health_check",
}


def main(arguments: list[str]) -> None:
    """Run the command that `arguments` name; an error that the user can fix is one line and exit code 2."""
    module = _MODULES.get(" ".join(arguments))
    if module is None:
        sys.exit(f"usage: python -m app.appliance {'|'.join(_MODULES)}")
    try:
        importlib.import_module(module).main()
    except ApplianceError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
