#!/bin/sh
# Makes .venv-llmlingua with transformers 4.46.3, the newest by which `llmlingua` can drop words by perplexity, and runs
# the tests that need it. This package goes in without its dependencies: it asks for a newer tokenizers.
# Python 3.11 or 3.12 is needed, and an index that has the packages; where one is missing, this says so and passes.
set -u
bin=.venv-llmlingua/bin
usable() { "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1; }
python=""
for candidate in ${LLMLINGUA_PYTHON:-} python3.11 python3.12 python3 "$HOME"/.pyenv/versions/3.1[12]*/bin/python; do
    if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "llmlingua-legacy: needs Python 3.11 or 3.12 (LLMLINGUA_PYTHON=/path/to/python); dropping by perplexity is not tested"
    exit 0
fi
if [ ! -f .venv-llmlingua/ready ]; then
    "$python" -m venv .venv-llmlingua || exit 1
    if ! $bin/python -m pip download --quiet --no-deps --dest .venv-llmlingua/wheels "transformers==4.46.3" >/dev/null 2>&1; then
        echo "llmlingua-legacy: the package index has no transformers 4.46.3; dropping by perplexity is not tested"
        exit 0
    fi
    $bin/python -m pip install --quiet --constraint constraints.txt torch "transformers==4.46.3" "llmlingua==0.2.2" \
        langchain-core genai-prices tiktoken pytest pytest-asyncio hypothesis &&
        $bin/python -m pip install --quiet --no-deps --editable . "llama-index-core>=0.14,<0.15" &&
        touch .venv-llmlingua/ready || exit 1
fi
OMP_NUM_THREADS=1 $bin/python -m pytest --override-ini=addopts=--import-mode=importlib --override-ini=filterwarnings= \
    tests/compression/test_llmlingua_legacy.py
