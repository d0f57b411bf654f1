#!/usr/bin/env bash
# Lint, types, directions of import, and tests. Arguments go to pytest: bash launch/test.sh -k losses, or -m heavy.
set -euo pipefail
extras='embed eval hf judge lora quantised test tpu translate'  # tpu: steps are compiled for TPU slices in the tests, without a TPU
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cd -- "$root"

ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest -q -n 2 "$@"
