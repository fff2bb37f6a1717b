# shellcheck shell=sh
# Sourced by run.sh and run-tests.sh, in the project's folder. `make_venv embedded` makes .venv with that extra, updates it
# when pyproject.toml or constraints.txt has changed, and puts it first in PATH. PYTHON names the interpreter of a new
# .venv.

make_venv() {
    stamp=.venv/.$1 wanted=$(cat pyproject.toml constraints.txt | cksum)
    if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        python=$(find_python)
        "$python" -m venv --clear .venv
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "notifymux: installing into .venv (a minute or two the first time)"
        .venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$1]"
        echo "$wanted" >"$stamp"
    fi
    PATH=$PWD/.venv/bin:$PATH
}

find_python() {
    remedy="install it"
    for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$python"
            return
        fi
        remedy="$python lacks it: install its package for that (python3-venv)"
    done
    echo "notifymux: this needs Python 3.11 or newer with venv; $remedy" >&2
    return 1
}
