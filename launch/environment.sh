# Sourced by the scripts beside it: makes the virtual environment, or installs what it lacks.
# Set by whoever starts a script:
#   PYTHON            interpreter to make it with (else python3, or another from 3.11 to 3.13)
#   AYA_TRAIN_VENV    where it is (.venv in the checkout); `none`: the one in force is taken as it is
#   AYA_TRAIN_TORCH   `index`: Torch as the package index has it, however large; `none`: no Torch
# Set by the script, before it sources this:
#   extras            of setup.py, separated by spaces
#   torch_is_optional 1: go without Torch where only a build with CUDA is to be had
#   releases          newest, oldest: Python and releases that setup.py admits, instead of constraints.txt
# Sets $root, the checkout, and puts the environment's bin in front of PATH.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${AYA_TRAIN_VENV:-$root/.venv${releases:+-$releases}}
cpu_torch=https://download.pytorch.org/whl/cpu

if [ "$venv" = none ]; then
  command -v aya-train > /dev/null || { echo 'AYA_TRAIN_VENV=none: no aya-train on PATH' >&2; exit 1; }
  return
fi

runs_python() { # runs_python INTERPRETER LOWEST HIGHEST
  "$1" -c "import sys; sys.exit(not ($2) <= sys.version_info[:2] <= ($3))" 2> /dev/null
}

interpreters() { # those that may serve, first those to prefer; pyenv's stand beside PATH
  local version versions='3.13 3.12 3.11'
  case ${releases:-} in
    '') echo python3 ;;
    oldest) versions='3.11 3.12 3.13' ;;
  esac
  for version in $versions; do
    echo "python$version"
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python 2> /dev/null || true
  done
  echo python3
}

choose_python() { # sets $python
  if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
    runs_python "$python" '3, 11' '3, 99' && return
    echo "aya-train needs Python 3.11 or newer, $python is $("$python" --version 2>&1): set PYTHON" >&2
    exit 1
  fi
  while read -r python; do
    runs_python "$python" '3, 11' '3, 13' && return
  done < <(interpreters)
  echo "aya-train needs Python 3.11, 3.12 or 3.13 (TensorFlow has no wheels for newer ones)," \
    "and python3 is $(python3 --version 2>&1): set PYTHON" >&2
  exit 1
}

torch_may_be_left_out() {
  case ${AYA_TRAIN_TORCH:-} in
    none) true ;;
    '') [ -n "${torch_is_optional:-}" ] ;;
    *) false ;;
  esac
}

finds_torch_without_cuda() { # whether pip, with these options, finds and prefers such a build
  local found pinned
  found=$("$venv/bin/python" -m pip index versions torch "$@" 2> /dev/null) || return 1
  pinned=$(sed -n 's/^torch==//p' "$constraints")
  [ "${releases:-}" != newest ] || found=$(head -n 1 <<< "$found") pinned=
  grep -qF -- "$pinned+cpu" <<< "$found"
}

choose_torch() { # sets $torch, and $torch_options for pip
  torch_options=()
  if [ "${releases:-}" != newest ] && "$venv/bin/python" -c 'import torch' 2> /dev/null; then
    torch='Torch is installed already'
  elif [ "${AYA_TRAIN_TORCH:-}" != none ] && [ "$(uname -s)" != Linux ]; then
    torch='Torch, 0.1 GB'
  elif [ "${AYA_TRAIN_TORCH:-}" != none ] && finds_torch_without_cuda; then
    torch='Torch without CUDA, 0.2 GB'
  elif [ -z "${AYA_TRAIN_TORCH:-}" ] &&
    finds_torch_without_cuda --index-url "$cpu_torch" --retries 0 --timeout 10; then
    torch="Torch without CUDA, 0.2 GB, from $cpu_torch"
    torch_options=(--extra-index-url "$cpu_torch")
  elif torch_may_be_left_out; then
    torch='no Torch, so nothing is compared with transformers: the package index has only a build
  with CUDA, 2.7 GB. AYA_TRAIN_TORCH=index takes it'
    [ -z "${AYA_TRAIN_TORCH:-}" ] || torch='no Torch, so nothing is compared with transformers'
    extras=$(printf '%s\n' $extras | sed 's/^hf$/hf-files/')
  else
    torch='Torch with CUDA, 2.7 GB: no package index that answers has a build without it'
  fi
}

# SeqIO needs editdistance, which has wheels up to Python 3.12 and is compiled for newer ones.
check_compiler() {
  local header
  runs_python "$venv/bin/python" '3, 13' '3, 99' || return 0
  header=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  if command -v "${CXX:-c++}" > /dev/null && [ -e "$header" ]; then return; fi
  if "$venv/bin/python" -c 'import editdistance' 2> /dev/null; then return; fi
  echo "SeqIO needs editdistance, which pip compiles for Python 3.13. That takes a C++ compiler and" \
    "$header (Debian: apt install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel;" \
    'macOS: xcode-select --install). Python 3.11 and 3.12 need neither: set PYTHON' >&2
  exit 1
}

pip_install() { # shows what comes, on a terminal with pip's progress bars
  local pip=("$venv/bin/python" -m pip install --disable-pip-version-check "$@")
  if [ -t 1 ]; then "${pip[@]}"
  else "${pip[@]}" | awk '/^ *(Downloading|Building|Installing) / { print; fflush() }'
  fi
}

has_extra() { # of those $installed
  case " $installed " in
    *" $1 "*) true ;;
    *' hf-files '*) [ "$1" = hf ] && torch_may_be_left_out ;;
    *) false ;;
  esac
}

# pip has no such resolution; uv does, and asks the index that UV_DEFAULT_INDEX names, else PyPI.
find_oldest() { # writes $constraints: what setup.py asks for at its lowest, the rest at its newest
  local extra chosen=()
  for extra in $extras; do chosen+=(--extra "$extra"); done
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet uv
  "$venv/bin/python" -m uv pip compile --quiet --no-header --no-annotate --python "$venv/bin/python" \
    --resolution lowest-direct "${chosen[@]}" --output-file "$constraints" "$root/setup.py"
}

set_up() { # the environment is as the files say, installed for this checkout, and has these extras
  local files installed='' lacking="${releases:-}" extra version
  local record=$venv/aya-train-installed constraints=$root/constraints.txt options
  files="$(cat -- "$root/setup.py" "$root/constraints.txt" | cksum) $root"
  if [ "$(sed -n 1p "$record" 2> /dev/null)" = "$files" ]; then installed=$(sed -n 2p "$record"); fi
  for extra in $extras; do
    has_extra "$extra" || lacking=1
  done
  [ -n "$lacking" ] || return 0

  if [ ! -x "$venv/bin/python" ]; then
    choose_python
    "$python" -m venv -- "$venv"
  fi
  check_compiler
  if [ "${releases:-}" = oldest ]; then
    constraints=$venv/oldest.txt
    find_oldest
  fi
  choose_torch
  version=$("$venv/bin/python" -c 'import platform; print("Python", platform.python_version())')
  printf '%s\n' "Setting up $venv ($version). Downloaded, unless it is there:" \
    '  what training needs, 1.0 GB; TensorFlow is 0.6 GB of it' "  $torch"
  case " $extras " in *' test '*) echo '  what tests need, 0.3 GB; libtpu is 0.1 GB of it' ;; esac
  options=(--constraint "$constraints")
  [ "${releases:-}" != newest ] || options=(--upgrade --upgrade-strategy eager)
  pip_install "${options[@]}" ${torch_options[@]+"${torch_options[@]}"} \
    --editable "$root[$(echo $extras | tr ' ' ,)]"
  printf '%s\n%s\n' "$files" "$(echo $installed $extras | tr ' ' '\n' | sort -u | xargs)" > "$record"
}

set_up
export PATH="$venv/bin:$PATH"
