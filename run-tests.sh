#!/bin/sh
# Runs the tests: ./run-tests.sh [pytest arguments]. --tier=long adds the long ones.
set -eu
cd "$(dirname "$0")"
. tools/venv.sh
make_venv test
exec python -m pytest "$@"
