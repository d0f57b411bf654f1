#!/usr/bin/env bash
# Lint, types, directions of import, and tests. Arguments go to pytest: bash launch/test.sh -k losses, or -m heavy.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cd -- "$root"

# Steps are compiled for TPU slices in the tests, without a TPU.
python -c 'import libtpu' 2>/dev/null ||
  python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt 'libtpu'

ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest -q -n 2 "$@"
