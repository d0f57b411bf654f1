#!/usr/bin/env bash
# The fast tests and a run of 50 steps on the oldest Python that is here, with the oldest releases that
# setup.py admits. Arguments go to pytest. PYTHON and AYA_TRAIN_VENV (.venv-oldest) as in environment.sh.
set -euo pipefail
releases=oldest
source "$(dirname -- "${BASH_SOURCE[0]}")/release_tests.sh" "$@"
