# Sourced by the scripts beside it: sets PYTHON to the interpreter of the project's own virtual environment, which is made
# on first use and brought up to date when pyproject.toml changes. Needs Python >= 3.11 and its venv module only.
# EDGED_VENV: where it is (default .venv in the checkout). Extras are given as $1 (e.g. "dev").
set -eu
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VENV=${EDGED_VENV:-$ROOT/.venv}

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "edged needs Python 3.11 or newer: sudo apt install python3 python3-venv" >&2
    exit 2
}

make_venv() {
    base=$(find_python) || exit 2
    if ! "$base" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "Python's venv module is missing: sudo apt install python3-venv" >&2
        exit 2
    fi
    [ -x "$VENV/bin/python" ] || { echo "making a virtual environment in ${VENV#"$ROOT"/}" >&2; "$base" -m venv "$VENV"; }
    stamp="$VENV/edged-$1.stamp"
    want=$(cksum "$ROOT/pyproject.toml")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "installing edged[$1] and what it needs (once; a minute or two)" >&2
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT[$1]"
        echo "$want" >"$stamp"
    fi
}

make_venv "${1:-demo}"
PYTHON="$VENV/bin/python"
