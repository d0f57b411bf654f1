# Sourced by the example runs beside it: their environment, and what they have in common.
#   begin RUN ARGUMENTS...   with --fresh the folder of the last run is forgotten; another argument is refused
#   say TEXT                 a heading
#   report_run RUN EXPORT    the export's answers are compared where transformers is installed
# Sets $root and $started too.

extras=hf
torch_is_optional=1
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

started=$SECONDS
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}  # where libtpu is installed, JAX would look for a TPU

begin() {
  case "${2:-}" in
    '') ;;
    --fresh) rm -rf -- "$1" ;;
    *) echo "usage: bash launch/${0##*/} [--fresh]" >&2; exit 2 ;;
  esac
}

say() { printf '\n== %s\n' "$1"; }

report_run() {
  local found='import importlib.util, sys
sys.exit(not all(importlib.util.find_spec(name) for name in ("torch", "transformers")))'
  if python -c "$found"; then
    aya-train report "$1" --hf "$2"
  else
    aya-train report "$1"
    printf '\n%s\n' 'The export was not reloaded with transformers and compared: Torch is not installed here.' \
      "AYA_TRAIN_TORCH=index bash launch/${0##*/} installs it (2.7 GB on Linux, with CUDA) and compares."
  fi
}
