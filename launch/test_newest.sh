#!/usr/bin/env bash
# The fast tests and a run of 50 steps on the newest Python that is here, with the newest releases that
# setup.py admits. Arguments go to pytest. PYTHON and AYA_TRAIN_VENV (.venv-newest) as in environment.sh.
set -euo pipefail
releases=newest
source "$(dirname -- "${BASH_SOURCE[0]}")/release_tests.sh" "$@"
