#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: bash launch/test.sh -k losses, or -m heavy.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cd -- "$root"

ruff check .
ruff format --check .
mypy
python -m pytest -q -n 2 "$@"
