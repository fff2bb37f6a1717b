#!/bin/bash
# Starts the appliance; with arguments it runs these instead (python -m listener: a sidecar).
# It exports no setting: each program reads .env when it starts, so that a restart is enough after an edit.
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<'END'
Usage: docker run [docker's options] notifymux [COMMAND ...]
  without COMMAND             everything: the listener and the web workers; without DB_HOST and REDIS_URL also an
                              embedded PostgreSQL and Valkey, and a demo match
  python -m listener          the listener alone, as a sidecar
  python -m listener verify   checks the settings, the servers and the way of an event
  python -m listener install  makes the functions and triggers of docs/triggers.md
  gunicorn -c python:app.gunicorn_conf app.main:app
                              the web workers alone
Settings are environment variables, or lines of /srv/notifymux/.env; docs/settings.md lists them.
END
}

case "${1:-}" in
    '') ;;
    -h | --help | help) usage && exit 0 ;;
    -*) echo "notifymux: it has no option $1" >&2 && usage >&2 && exit 2 ;;
    *) exec "$@" ;;
esac

python -m app.appliance prepare &
trap 'kill $! 2>/dev/null || :; wait $! || :; exit 0' INT TERM
wait $!
trap - INT TERM

[ "$(id -u)" -ne 0 ] || set -- --user=root # without it, supervisord warns of running as root
# Nobody waits for whoever reads the output: the relay reads it, and drops what can't be written.
exec python -S -m app.appliance.supervision.output_relay supervisord --configuration=supervisord.conf "$@"
