# Sourced by test_newest.sh and test_oldest.sh, which set $releases: the fast tests, and a run of 50 steps.
extras='embed eval hf judge lora quantised test tpu translate'
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cd -- "$root"

python --version
python - << 'END'
import importlib.metadata

for name in (
  *('jax', 'jaxlib', 'libtpu', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'seqio', 'numpy'),
  *('tensorflow', 'torch', 'transformers', 'ctranslate2', 'gguf'),
):
  try:
    print(name, importlib.metadata.version(name))
  except importlib.metadata.PackageNotFoundError:
    print(name, 'is not installed')
END

python -m pytest -q -n 2 "$@"

run=$(mktemp -d)
trap 'rm -rf -- "$run"' EXIT
AYA_TRAIN_VENV=none AYA_TRAIN_SMOKE_DIR=$run/smoke AYA_TRAIN_SMOKE_STEPS=50 bash launch/smoke.sh
