#!/usr/bin/env bash
# The API as HTML pages, built from the docstrings: bash launch/api_pages.sh [FOLDER]
#   FOLDER    where they go (build/api in the checkout)
set -euo pipefail
extras=docs
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-$root/build/api}
export PDOC_ALLOW_EXEC=1  # JAX and TensorFlow ask the system about itself
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}  # modules are imported; none needs an accelerator
python -m pdoc --docformat google --output-directory "$folder" aya_train
echo "Open $folder/index.html"
