# Sourced by the scripts beside it, which set EXTRA (an extra of pyproject.toml; default demo): sets ROOT, and PYTHON to the
# interpreter of the project's own virtual environment. It is made on first use, made again when it is broken, and brought
# up to date when pyproject.toml changes. Needs a 64-bit Python >= 3.11 with its venv module, and pip's way to packages.
# EDGED_VENV: where it is (default .venv in the checkout). Nothing is written anywhere else, no cache in HOME either.
set -eu
ROOT=$(cd "$(dirname "$0")/.." && pwd)
VENV=${EDGED_VENV:-$ROOT/.venv}

# The system's own Python first: its venv module is the one that apt's python3-venv brings.
find_python() {
    old=""
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            old="$old $candidate"
        elif ! "$candidate" -c 'import sys; sys.exit(sys.maxsize < 2**32)'; then
            echo "edged needs a 64-bit system: install the 64-bit image of this board's OS" >&2
            return 1
        elif "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "$candidate"
            return 0
        else
            without="$candidate"
        fi
    done
    if [ -n "${without:-}" ]; then
        echo "Python's venv module is missing: sudo apt install $without-venv" >&2
    else
        echo "edged needs Python 3.11 or newer${old:+ (too old:$old)}: sudo apt install python3 python3-venv" >&2
    fi
    return 1
}

make_venv() {
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        base=$(find_python) || exit 2
        echo "making a virtual environment in ${VENV#"$ROOT"/}" >&2
        "$base" -m venv --clear "$VENV"
    fi
    stamp="$VENV/edged-$1.stamp"
    want=$(cksum "$ROOT/pyproject.toml")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "installing edged[$1] and what it needs (once; a minute or two)" >&2
        if ! "$VENV/bin/python" -m pip install --quiet --editable "$ROOT[$1]"; then
            echo "pip could not install them: see above; without a network, set PIP_FIND_LINKS to a folder of wheels" >&2
            exit 1
        fi
        echo "$want" >"$stamp"
    fi
}

export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
make_venv "${EXTRA:-demo}"
PYTHON="$VENV/bin/python"
export PYTHONPYCACHEPREFIX="$VENV/pycache"
