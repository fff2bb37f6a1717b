#!/bin/bash
# Starts the appliance; with arguments it runs these instead (python -m listener: a sidecar).
# It exports no setting: each program reads .env when it starts, so that a restart is enough after an edit.
set -eu
cd "$(dirname "$0")"
[ $# -eq 0 ] || exec "$@"

python -m app.appliance prepare &
trap 'kill $! 2>/dev/null || :; wait $! || :; exit 0' INT TERM
wait $!
trap - INT TERM

[ "$(id -u)" -ne 0 ] || set -- --user=root # without it, supervisord warns of running as root
# Nobody waits for whoever reads the output: the relay reads it, and drops what can't be written.
exec python -S -m app.appliance.supervision.output_relay supervisord --configuration=supervisord.conf "$@"
