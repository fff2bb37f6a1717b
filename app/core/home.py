"""The folder of `.env` and `.run`, which is the working directory of every program."""

import os


def enter_home() -> None:
    """Go there if the environment names it; the image does, so that `docker exec` runs a command in any folder."""
    if home := os.environ.get("NOTIFYMUX_HOME"):
        os.chdir(home)
