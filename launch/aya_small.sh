#!/usr/bin/env bash
# The Aya recipe on this machine, end to end, over small files of the released layouts:
# sources -> mixture aya_open -> report of its data -> training from a T5X checkpoint, killed and
# resumed -> evaluation -> answers -> Hugging Face folder -> report.
#   bash launch/aya_small.sh            everything, set-up included; continues what was stopped
#   bash launch/aya_small.sh --fresh    forget the last run first
#   AYA_TRAIN_SMALL_DIR                 where everything goes (runs/aya_small in the checkout)
#   AYA_TRAIN_SMALL_STEPS               steps of the Aya recipe (12)
#   AYA_TRAIN_CACHE                     built sources, vocabulary, prepared tasks (cache in that folder)
# Settings are the recipe's (gin/recipes/sft_aya.gin) but for the sizes: model, batch, steps, periods.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/example_run.sh"

run=${AYA_TRAIN_SMALL_DIR:-$root/runs/aya_small}
steps=${AYA_TRAIN_SMALL_STEPS:-12}
begin "$run" "$@"
mkdir -p -- "$run"
run=$(cd -- "$run" && pwd)

export AYA_TRAIN_CACHE=${AYA_TRAIN_CACHE:-$run/cache}

fail() { printf 'aya_small.sh: %s\n' "$1" >&2; exit 1; }

released=$run/released
pretrained=60
initial=$run/pretrained_t5x/checkpoint_$pretrained
model=$run/aya
lengths='{"inputs": 1024, "targets": 1024}'

say ' 1/11  released files, small'
if [ ! -e "$released" ]; then
  rm -rf -- "$released.partial"
  (cd -- "$root" && python -m tests.small_release "$released.partial") 2> "$run/released.log" ||
    { cat -- "$run/released.log" >&2; exit 1; }
  mv -- "$released.partial" "$released"
fi

say ' 2/11  prepare: the CLDR set and the vocabulary trained on it, then each source'
aya-train prepare cldr
for folder in "$released"/*/; do
  aya-train prepare "$(basename -- "$folder")" --data_dir "${folder%/}" --workers 1
done

say " 3/11  an initial checkpoint in T5X's format: $pretrained steps on the CLDR set from random weights"
if [ ! -e "$initial" ]; then
  aya-train train --gin_file=models/mt5_tiny.gin --gin_file=recipes/sft_smoke.gin \
    --gin_file=hardware/cpu_local.gin --gin.MODEL_DIR="\"$run/pretrained\"" \
    --gin.TRAIN_STEPS=$pretrained --gin.EVAL_BEFORE_TRAINING=False --gin.EVAL_STEPS=4 \
    --gin.INFER_EVAL_CFG=None
  aya-train convert "$run/pretrained" "$initial" --to t5x
fi

gin=(--gin_file=models/mt5_tiny.gin --gin_file=recipes/sft_aya.gin --gin_file=hardware/cpu_local.gin)
gin+=(--gin.MODEL_DIR="\"$model\"" --gin.INITIAL_CHECKPOINT_PATH="\"$initial\"")
gin+=(--gin.TRAIN_STEPS_RELATIVE="$steps" --gin.BATCH_SIZE=8 --gin.RANDOM_SEED=0)
gin+=(--gin.LOG_PERIOD=1 --gin.EVAL_PERIOD=$(((steps + 1) / 2)))
gin+=(--gin.CHECKPOINT_PERIOD=$(((steps + 2) / 3)))

say ' 4/11  prepare: the mixture aya_open, tokenised'
aya-train prepare "${gin[@]}"

say ' 5/11  report on its data'
aya-train report data aya_open "${gin[@]}" --output "$run/data_aya_open.html"

# As a power cut would end it: nothing can be saved. Once only, however often the script is started.
if [ ! -e "$run/killed" ]; then
  say ' 6/11  train, and kill it (-9) once it has saved a checkpoint'
  aya-train train "${gin[@]}" &
  child=$!
  trap 'kill -TERM "$child" 2> /dev/null || true' EXIT
  for _ in $(seq 3000); do  # ten minutes
    if ls -- "$model/checkpoints" 2> /dev/null | grep -qxE '[0-9]+'; then break; fi
    kill -0 "$child" 2> /dev/null || break
    sleep 0.2
  done
  kill -KILL "$child" 2> /dev/null || true
  wait "$child" 2> /dev/null && code=0 || code=$?
  trap - EXIT
  [ "$code" = 137 ] || fail "the training was to be killed, it ended by itself with $code"
  saved=$(ls -- "$model/checkpoints" | grep -xE '[0-9]+' | sort -n | tail -n 1) ||
    fail 'no checkpoint was saved in ten minutes'
  echo "killed; the newest checkpoint is that of step $saved"
  touch -- "$run/killed"
fi

say ' 7/11  the same command again: it goes on from there'
aya-train train "${gin[@]}"

say " 8/11  evaluate: loss on the mixture's validation split, and on the Aya Evaluation Suite"
evaluated() {
  aya-train eval --gin_file=models/mt5_tiny.gin --gin_file=recipes/eval.gin \
    --gin_file=hardware/cpu_local.gin --gin.CHECKPOINT_PATH="\"$model\"" \
    --gin.EVAL_OUTPUT_DIR="\"$run/eval/$1\"" --gin.MIXTURE_OR_TASK_NAME="\"$1\"" \
    --gin.SPLIT="\"$2\"" --gin.TASK_FEATURE_LENGTHS="$lengths" --gin.BATCH_SIZE=8
}
evaluated aya_open validation
evaluated aya_evaluation_suite.aya_human_annotated test

say ' 9/11  answers to prompts of the Aya Evaluation Suite'
aya-train infer --gin_file=models/mt5_tiny.gin --gin_file=recipes/infer.gin \
  --gin_file=hardware/cpu_local.gin --gin.CHECKPOINT_PATH="\"$model\"" \
  --gin.OUTPUT_FILE="\"$run/answers.jsonl\"" --gin.NUM_EXAMPLES=4 \
  --gin.TASK_FEATURE_LENGTHS='{"inputs": 1024, "targets": 64}' \
  --gin.MIXTURE_OR_TASK_NAME='"aya_evaluation_suite.aya_human_annotated"'

say '10/11  export to Hugging Face'
aya-train convert "$model" "$model/hf" --to hf --overwrite

say '11/11  reload with transformers, compare, report'
report_run "$model" "$model/hf"
printf '\nDone in %d min %02d s after set-up. Open %s and %s\n' \
  $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) \
  "$run/data_aya_open.html" "$model/report.html"
