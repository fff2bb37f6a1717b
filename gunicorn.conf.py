"""What gunicorn reads in this folder without -c: `gunicorn app.main:app` serves as the appliance does."""

from app.gunicorn_conf import *  # noqa: F403 - gunicorn's file, with gunicorn's name
