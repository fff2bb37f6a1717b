#!/bin/sh
# Runs everything on this machine: embedded PostgreSQL and Valkey, a demo match, http://localhost:8000. Ctrl-C stops it.
set -eu

usage() {
    cat <<'END'
Usage: ./run.sh
Makes .venv (PYTHON chooses the interpreter), and runs the listener and the web workers on this machine; without DB_HOST
and REDIS_URL also an embedded PostgreSQL and Valkey, and a demo match. Ctrl-C stops everything.
Settings are environment variables, or lines of .env; docs/settings.md lists them. The checks of settings and servers:
  .venv/bin/python -m listener verify
END
}

case "${1:-}" in
    '') ;;
    -h | --help | help) usage && exit 0 ;;
    *) echo "notifymux: it takes no arguments: $*" >&2 && usage >&2 && exit 2 ;;
esac

cd "$(dirname "$0")"
. tools/venv.sh

make_venv embedded

# Serves this machine only, unless HOST is set.
[ -n "${HOST:-}" ] || grep -Eqs '^[[:space:]]*(export[[:space:]]+)?HOST[[:space:]]*=[[:space:]]*[^[:space:]]' .env ||
    export HOST=127.0.0.1

./entrypoint.sh &
appliance=$!
# Before supervisord runs, as the child of this pid, a process that answers on the port is another one.
runs_supervisord() {
    supervisord=$(cat .run/supervisord.pid 2>/dev/null) &&
        [ "$(ps -o ppid= -p "$supervisord" 2>/dev/null | tr -d ' ')" = "$appliance" ]
}
(
    until runs_supervisord; do sleep 0.1; done
    exec python -m app.appliance welcome
) &
welcome=$!

# shellcheck disable=SC2317  # called by the trap
stop() {
    trap '' HUP INT TERM
    kill "$appliance" "$welcome" 2>/dev/null || :
    wait "$appliance" || :
    echo "notifymux: stopped"
    exit 0
}
trap stop HUP INT TERM

code=0
wait "$appliance" || code=$?
kill "$welcome" 2>/dev/null || :
exit "$code"
