#!/usr/bin/env bash
# Runs on each host of a pod; launch/tpu_pod copies it there and calls it.
#   pod_host.sh install WHEEL CONSTRAINTS EXTRA   a virtual environment with the pinned versions
#   pod_host.sh start ARGUMENTS...                `aya-train ARGUMENTS --multihost` in the background
#   pod_host.sh status                            aya-train-host NAME KIND NUMBER COMMAND, where KIND is
#                                                 absent | running (SECONDS silent) | exit CODE | stopped CODE
#   pod_host.sh log [LINES]                       the end of the log
#   pod_host.sh stop [SECONDS]                    SIGTERM; the run saves and ends, and stays stopped
#   pod_host.sh halt [SECONDS]                    the same, before another start
# Everything lies in ~/aya-train-job. Each command may be given again at any time.
set -euo pipefail
self=$(realpath "$0")
job=$HOME/aya-train-job
mkdir -p "$job"
cd "$job"
uv=uv==0.13.9
cpu_torch=https://download.pytorch.org/whl/cpu

fail() { echo "$(hostname): $*" >&2; exit 4; }
# The lock is held by the run and whatever it started, so a killed parent does not hide a living child.
running() { [ -e run.lock ] && ! flock -n run.lock true && [ ! -s exit ]; }
leftover() { [ -e run.lock ] && ! flock -n run.lock true; }
key() { printf '%s\0' "$@" | sha256sum | cut -c1-16; }
# Whether the run's first process lives; a killed one may stay a zombie for a while.
leader() { [ -s pid ] && ps -o stat= -p "$(cat pid)" 2> /dev/null | grep -qv '^Z'; }
group() { [ -s pid ] && kill "-$1" -- "-$(cat pid)" 2>/dev/null || true; }

# Makes env/ with Python 3.11 or newer. The images of TPU hosts have 3.10, and not always venv.
environment() {
  local python
  for python in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    command -v "$python" > /dev/null || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || continue
    rm -rf env
    if "$python" -m venv env 2> venv.log; then return; fi
  done
  rm -rf env
  python3 -m pip install --quiet --disable-pip-version-check --upgrade --target uv "$uv"
  UV_PYTHON_INSTALL_DIR=$job/python uv/bin/uv venv --quiet --seed --python 3.11 env
}

case "${1:-}" in
  install)
    exec 9> install.lock
    flock 9
    if running; then echo 'running: not touched'; exit; fi
    wanted=$(cksum "$2" "$3")" $4"
    if [ "$(cat installed 2> /dev/null)" = "$wanted" ]; then echo installed; exit; fi
    free=$(df -Pm . | awk 'NR == 2 {print $4}')
    [ "$free" -ge 8192 ] || [ -s installed ] ||
      fail "expected 8 GiB of free disk for the packages, got $free MiB: remove something from $(df -P . | awk 'NR == 2 {print $6}')"
    [ -s installed ] || environment   # what an interrupted installation left is not used
    rm -f installed
    pip=(env/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check)
    "${pip[@]}" --extra-index-url "$cpu_torch" --constraint "$3" "$2[$4]"
    # pip keeps an installed package of the same version, whatever the wheel contains.
    "${pip[@]}" --no-deps --force-reinstall "$2"
    printf '%s' "$wanted" > installed
    echo installed ;;
  start)
    shift
    exec 9> install.lock
    flock 9
    if running; then
      [ "$(cat command 2> /dev/null)" = "$(key "$@")" ] || fail 'another command is running: stop it first'
      echo running
      exit
    fi
    other=$(ps -eo user:32=,pid=,args= | awk -v me="$(id -un)" '$1 != me && /aya-train-job\/env\/bin\// {print $1 " (process " $2 ")"; exit}')
    [ -z "$other" ] || fail "$other already runs aya-train here: a TPU serves one process, so take a slice of another name"
    [ -s installed ] || fail 'nothing is installed: give `install` first'
    if leftover; then group KILL; sleep 1; fi
    exec 8> run.lock
    flock -w 30 8 || fail 'processes of the last run hold the TPU and cannot be ended'
    # A lock left by a killed process makes the next one wait for the TPU for ever.
    if [ -e /tmp/libtpu_lockfile ] && ! fuser -s /tmp/libtpu_lockfile 2> /dev/null; then
      rm -f /tmp/libtpu_lockfile 2> /dev/null || sudo -n rm -f /tmp/libtpu_lockfile || true
    fi
    rm -f exit stopped pid
    key "$@" > command
    if [ "$(stat -c %s log 2> /dev/null || echo 0)" -gt 100000000 ]; then mv log log.1; fi
    printf '\n== %s aya-train %s\n' "$(date -u +%FT%TZ)" "$*" >> log
    setsid bash "$self" _run "$@" < /dev/null >> log 2>&1 9>&- &
    for _ in $(seq 50); do [ -s pid ] && break; sleep 0.1; done
    echo started ;;
  _run)
    shift
    echo $$ > pid
    trap '' HUP
    if [ -r secrets ]; then set -a; . ./secrets; set +a; fi
    child=
    trap '[ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM INT
    env/bin/aya-train "$@" --multihost &
    child=$!
    wait "$child" && code=0 || code=$?
    while kill -0 "$child" 2> /dev/null; do wait "$child" && code=0 || code=$?; done   # a signal ends wait
    echo "$code" > exit.new
    mv exit.new exit ;;
  status)
    name=$(hostname) command=$(cat command 2> /dev/null || echo -)
    if running; then
      kind="running $(($(date +%s) - $(stat -c %Y log)))"
    elif [ -e stopped ]; then
      kind="stopped $(cat exit 2> /dev/null || echo 137)"
    elif [ -s exit ]; then
      kind="exit $(cat exit)"
    elif [ "$command" != - ]; then
      kind='exit 137'   # ended without a word: killed, or the host was restarted
    else
      kind='absent 0'
    fi
    echo "aya-train-host $name $kind $command" ;;
  log) tail -n "${2:-50}" log ;;
  stop | halt)
    if running; then
      if [ "$1" = stop ]; then touch stopped; fi
      if leader; then kill -TERM "$(cat pid)" 2> /dev/null || true; else group TERM; fi
      for _ in $(seq "${2:-300}"); do running || break; sleep 1; done
    fi
    if leftover; then group KILL; fi
    echo stopped ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$self" >&2; exit 2 ;;
esac
