#!/bin/bash
# Starts the appliance, or with arguments runs those instead (python -m listener: a sidecar).
# Exports no setting: every program reads .env for itself, so that editing it counts at the next restart.
set -eu
cd "$(dirname "$0")"
[ $# -eq 0 ] || exec "$@"

# supervisord opens /dev/stdout anew for every program. Into a file all must append then, and what can't be opened (the
# terminal of who ran su, a socket of systemd's) is reached through a pipe.
[ ! -f /dev/stdout ] || exec >>/dev/stdout
[ ! -f /dev/stderr ] || exec 2>>/dev/stderr
(: >>/dev/stdout) 2>/dev/null || exec > >(trap '' INT TERM && exec cat)

python -m app.appliance prepare &
trap 'kill $! 2>/dev/null || :; wait $! || :; exit 0' INT TERM
wait $!
trap - INT TERM

[ "$(id -u)" -ne 0 ] || set -- --user=root # we mean it: no warning
exec supervisord --configuration=supervisord.conf "$@"
