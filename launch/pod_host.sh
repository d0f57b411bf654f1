#!/usr/bin/env bash
# Runs on each host of a pod; launch/tpu_pod copies it there and calls it.
#   pod_host.sh install WHEEL CONSTRAINTS EXTRA   a virtual environment with the pinned versions
#   pod_host.sh start ARGUMENTS...                `aya-train ARGUMENTS --multihost` in the background
#   pod_host.sh status                            one line: absent | running SECONDS_SILENT | exit CODE
#   pod_host.sh log [LINES]                       the end of the log
#   pod_host.sh stop                              SIGTERM; the run saves and ends
# Everything lies in ~/aya-train-job. Each command may be given again at any time.
set -euo pipefail
job=$HOME/aya-train-job
mkdir -p "$job"
cd "$job"

running() { [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; }

case "${1:-}" in
  install)
    wanted=$(cksum "$2" "$3")" $4"
    if [ "$(cat installed 2>/dev/null)" = "$wanted" ]; then echo installed; exit; fi
    [ -x env/bin/python ] || "${PYTHON:-python3}" -m venv env
    env/bin/python -m pip install --quiet --disable-pip-version-check --constraint "$3" "$2[$4]"
    printf '%s' "$wanted" > installed
    echo installed ;;
  start)
    shift
    if running; then echo running; exit; fi
    rm -f exit
    # A lock left by a killed process makes the next one wait for the TPU for ever.
    if [ -e /tmp/libtpu_lockfile ] && ! fuser -s /tmp/libtpu_lockfile 2>/dev/null; then
      rm -f /tmp/libtpu_lockfile 2>/dev/null || sudo -n rm -f /tmp/libtpu_lockfile || true
    fi
    printf '\n== %s aya-train %s\n' "$(date -u +%FT%TZ)" "$*" >> log
    (
      trap '' HUP
      [ -r secrets ] && { set -a; . ./secrets; set +a; }
      trap 'kill -TERM $! 2>/dev/null' TERM INT
      env/bin/aya-train "$@" --multihost < /dev/null >> log 2>&1 &
      wait $! && code=0 || code=$?
      if kill -0 $! 2>/dev/null; then wait $! && code=0 || code=$?; fi   # TERM ended the first wait
      echo "$code" > exit
    ) > /dev/null 2>&1 &
    echo $! > pid
    echo started ;;
  status)
    if running; then
      echo "running $(($(date +%s) - $(stat -c %Y log)))"
    elif [ -s exit ]; then
      echo "exit $(cat exit)"
    elif [ -s pid ]; then
      echo 'exit 137'   # ended without a word: killed, or the host was restarted
    else
      echo absent
    fi ;;
  log) tail -n "${2:-50}" log ;;
  stop)
    if running; then kill -TERM "$(cat pid)"; fi
    for _ in $(seq "${2:-120}"); do running || break; sleep 1; done
    if running; then kill -KILL "$(cat pid)"; pkill -KILL -P "$(cat pid)" || true; fi
    echo stopped ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
