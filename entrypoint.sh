#!/bin/bash
# Starts the appliance; with arguments it runs these instead (python -m listener: a sidecar).
# It exports no setting: each program reads .env when it starts, so that a restart is enough after an edit.
set -eu
cd "$(dirname "$0")"
[ $# -eq 0 ] || exec "$@"

# supervisord opens /dev/stdout again for each program. If that is a file, all of them have to append to it. If it can't
# be opened (another user's terminal after su, a socket of systemd), a pipe leads to it.
[ ! -f /dev/stdout ] || exec >>/dev/stdout
[ ! -f /dev/stderr ] || exec 2>>/dev/stderr
(: >>/dev/stdout) 2>/dev/null || exec > >(trap '' INT TERM && exec cat)

python -m app.appliance prepare &
trap 'kill $! 2>/dev/null || :; wait $! || :; exit 0' INT TERM
wait $!
trap - INT TERM

[ "$(id -u)" -ne 0 ] || set -- --user=root # without it, supervisord warns of running as root
exec supervisord --configuration=supervisord.conf "$@"
