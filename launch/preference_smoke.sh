#!/usr/bin/env bash
# Preference tuning on this machine, end to end: the smoke run's checkpoint -> log-likelihoods of it on
# pairs of the embedded set (a format right, and another language's) -> DPO -> report, before and after.
#   bash launch/preference_smoke.sh            # makes the smoke run first, if there is none
#   bash launch/preference_smoke.sh --fresh    # forget the last preference run first
#   AYA_TRAIN_SMOKE_DIR              the smoke run (runs/smoke in the checkout)
#   AYA_TRAIN_PREFERENCE_SMOKE_DIR   where the run goes (runs/preference_smoke in the checkout)
#   AYA_TRAIN_SMOKE_STEPS            so many steps and few decoded examples, to see that it works
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/example_run.sh"

sft=${AYA_TRAIN_SMOKE_DIR:-$root/runs/smoke}
run=${AYA_TRAIN_PREFERENCE_SMOKE_DIR:-$root/runs/preference_smoke}
begin "$run" "$@"

if [ ! -d "$sft/checkpoints" ]; then
  say "0/3  no smoke run in $sft: it is made first"
  bash "$(dirname -- "${BASH_SOURCE[0]}")/smoke.sh"
fi

started=$SECONDS
gin=(--gin_file=models/mt5_tiny.gin --gin_file=recipes/preference_smoke.gin
  --gin_file=hardware/cpu_local.gin --gin.MODEL_DIR="\"$run\""
  --gin.INITIAL_CHECKPOINT_PATH="\"$sft\"")
if [ -n "${AYA_TRAIN_SMOKE_STEPS:-}" ]; then
  gin+=(--gin.TRAIN_STEPS_RELATIVE="$AYA_TRAIN_SMOKE_STEPS" --gin.EVAL_STEPS=2
    --gin.EVALUATOR_NUM_EXAMPLES=64 --gin.TRAIN_SPLIT="'train[:256]'"
    --gin.TRAIN_EVAL_SPLIT="'validation[:64]'")
fi

say '1/3  score: what the smoke run says of each pair'
aya-train score "${gin[@]}"
say '2/3  train: DPO against it, evaluated before and after'
aya-train train "${gin[@]}"
say '3/3  report'
aya-train report "$run"
printf '\nDone in %d min %02d s after set-up. Open %s\n' \
  $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$run/report.html"
