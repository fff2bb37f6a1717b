"""`python -m app.appliance prepare|keeper|postgres|valkey|demo|welcome|ready`."""

import importlib
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # stopping is no error to tell of, already during the imports

from app.appliance import ApplianceError  # noqa: E402 - see above
from app.core.config import SettingsError  # noqa: E402

# Only what is asked for is imported: a server is the sooner back.
_MODULES = {
    "prepare": "app.appliance.prepare",
    "keeper": "app.appliance.supervision.watchdog",
    "postgres": "app.appliance.embedded.postgres",
    "valkey": "app.appliance.embedded.valkey",
    "demo": "app.appliance.demo.player",
    "welcome": "app.appliance.startup_banner",
    "ready": "app.appliance.health_check",
}


def main(arguments: list[str]) -> None:
    """Runs the one command that `arguments` name; a mistake of the user's is one line and exit code 2."""
    module = _MODULES.get(" ".join(arguments))
    if module is None:
        sys.exit(f"usage: python -m app.appliance {'|'.join(_MODULES)}")
    try:
        importlib.import_module(module).main()
    except (ApplianceError, SettingsError) as error:
        sys.stderr.write(f"notifymux: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
