# Sourced by the scripts beside it: makes the virtual environment if it is missing or out of date.
#   PYTHON            interpreter to make it with (python3; 3.11 or newer)
#   AYA_TRAIN_VENV    where it is (.venv in the checkout); `none`: the one in force is taken as it is
# Sets $root, the checkout, and puts the environment's bin in front of PATH.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${AYA_TRAIN_VENV:-$root/.venv}
python=${PYTHON:-python3}

if [ "$venv" = none ]; then
  command -v aya-train > /dev/null || { echo 'AYA_TRAIN_VENV=none: no aya-train on PATH' >&2; exit 1; }
  return
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "aya-train needs Python 3.11 or newer, $python is $("$python" --version 2>&1): set PYTHON" >&2
  exit 1
fi

# The environment is as the files say, and installed for this checkout.
wanted=$(cat -- "$root/setup.py" "$root/constraints.txt" | cksum)" $root"
if [ "$(cat -- "$venv/aya-train-installed" 2>/dev/null)" != "$wanted" ]; then
  echo "Setting up $venv (once; some minutes, most of them downloading)"
  [ -x "$venv/bin/python" ] || "$python" -m venv -- "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/constraints.txt" --editable "$root[hf,quantised,test]"
  printf '%s' "$wanted" > "$venv/aya-train-installed"
fi
export PATH="$venv/bin:$PATH"
