#!/usr/bin/env bash
# Sentence encoders on this machine, end to end: names of the same thing in two languages -> a tiny
# encoder -> bitext accuracy on things it never saw, against the untrained encoder -> report with a map.
#   bash launch/embed_smoke.sh            # everything, set-up included; continues what was stopped
#   bash launch/embed_smoke.sh --fresh    # forget the last run first
#   AYA_TRAIN_EMBED_SMOKE_DIR             where the run goes (runs/embed_smoke in the checkout)
#   AYA_TRAIN_EMBED_SMOKE_STEPS           so many steps, to see that it works
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/example_run.sh"

run=${AYA_TRAIN_EMBED_SMOKE_DIR:-$root/runs/embed_smoke}
begin "$run" "$@"

gin=(--gin_file=models/mt5_tiny.gin --gin_file=recipes/embed_smoke.gin --gin_file=hardware/cpu_local.gin)
if [ -n "${AYA_TRAIN_EMBED_SMOKE_STEPS:-}" ]; then
  gin+=(--gin.TRAIN_STEPS="$AYA_TRAIN_EMBED_SMOKE_STEPS" --gin.EVAL_STEPS=2)
fi

say '1/3  prepare: train the vocabulary, tokenise the pairs'
aya-train prepare cldr "${gin[@]}"
say '2/3  train'
aya-train train "${gin[@]}" --gin.MODEL_DIR="\"$run\""
say '3/3  report: bitext accuracy on unseen names, and the map'
aya-train report "$run"
printf '\nDone in %d s. Report: %s\n' $((SECONDS - started)) "$run/report.html"
