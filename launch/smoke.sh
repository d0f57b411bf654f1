#!/usr/bin/env bash
# The main job on this machine, end to end: CLDR instruction set -> SFT of a tiny mT5 -> evaluation
# -> checkpoint -> Hugging Face folder -> the same answers from transformers -> report.
#   bash launch/smoke.sh            # everything, set-up included; continues a run that was stopped
#   bash launch/smoke.sh --fresh    # forget the last run first
#   AYA_TRAIN_SMOKE_DIR             where the run goes (runs/smoke in the checkout)
#   AYA_TRAIN_SMOKE_STEPS           so many steps and few decoded examples, to see that it works
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/example_run.sh"

run=${AYA_TRAIN_SMOKE_DIR:-$root/runs/smoke}
begin "$run" "$@"

gin=(--gin_file=models/mt5_tiny.gin --gin_file=recipes/sft_smoke.gin --gin_file=hardware/cpu_local.gin)
if [ -n "${AYA_TRAIN_SMOKE_STEPS:-}" ]; then
  gin+=(--gin.TRAIN_STEPS="$AYA_TRAIN_SMOKE_STEPS" --gin.EVAL_STEPS=4
    --gin.EVALUATOR_NUM_EXAMPLES=64)
fi

say '1/4  prepare: build the data set, train the vocabulary, tokenise'
aya-train prepare cldr "${gin[@]}"
say '2/4  train and evaluate'
aya-train train "${gin[@]}" --gin.MODEL_DIR="\"$run\""
say '3/4  export to Hugging Face'
aya-train convert "$run" "$run/hf" --to hf --overwrite
say '4/4  reload with transformers, compare, report'
report_run "$run" "$run/hf"
printf '\nDone in %d min %02d s after set-up. Open %s\n' \
  $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$run/report.html"
