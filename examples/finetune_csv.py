"""Fine-tunes mT5 on a CSV of yours, and loads the result in transformers.

  python examples/finetune_csv.py examples/days.csv runs/days

The CSV needs a header, and columns for the question, the answer and the language. A tiny model
learns from random weights, in a minute or two: it learns the rows by heart, and shows the way, not
quality. examples/README.md says what a model of use needs.
"""

import argparse
import csv
import json
import pathlib
import sys

from aya_train.cli import main

# What a row becomes: columns between braces, inputs and targets apart by `|||`.
TEMPLATE = '{{{{ {question} }}}} ||| {{{{ {answer} }}}}\n'
TABLE = """# Data sets of a run, each a [[dataset]]: docs/mixtures.md lists the keys.
[[dataset]]
name = {name}
files = {{train = {path}}}
language_column = {language}
templates = 'rows.jinja'
"""


def aya_train(*words: str) -> None:
  """One command of aya-train, in this process; ends the program if it fails."""
  print('\n$ aya-train', *words, flush=True)
  if code := main.main(words):
    sys.exit(code)


def write_table(args: argparse.Namespace, name: str) -> pathlib.Path:
  """The table that makes a task of the CSV, and its template; both are small enough to be read."""
  args.output.mkdir(parents=True, exist_ok=True)
  template = TEMPLATE.format(question=args.question, answer=args.answer)
  (args.output / 'rows.jinja').write_text(template, encoding='utf-8')
  words = {'name': name, 'path': str(args.csv.resolve()), 'language': args.language}
  table = args.output / 'table.toml'
  text = TABLE.format(**{key: json.dumps(word) for key, word in words.items()})
  table.write_text(text, encoding='utf-8')
  return table


def answers(folder: pathlib.Path, questions: list[str]) -> list[str]:
  """What the exported model answers in transformers, greedily."""
  import torch
  import transformers

  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
  batch = tokenizer(questions, return_tensors='pt', padding=True)
  with torch.no_grad():
    tokens = model.generate(**batch, max_new_tokens=32)
  return tokenizer.batch_decode(tokens, skip_special_tokens=True)


def run(args: argparse.Namespace) -> None:
  """The whole way: table, vocabulary, training, export, answers."""
  name = args.csv.stem.replace('-', '_')
  table = write_table(args, name)
  aya_train('prepare', 'cldr')  # the vocabulary of mt5_tiny
  aya_train(
    'train',
    *(f'--gin_file={file}' for file in (args.model, 'recipes/sft.gin', 'hardware/cpu_local.gin')),
    f'--gin.MODEL_DIR="{args.output}/run"',
    f'--gin.DATASET_TABLES=("{table}",)',
    f'--gin.MIXTURE_OR_TASK_NAME="{name}"',
    '--gin.DATA_LICENSE_POLICY=None',  # your own data: you know what it allows
    '--gin.TASK_FEATURE_LENGTHS={"inputs": 64, "targets": 32}',
    f'--gin.INITIAL_CHECKPOINT_PATH={args.initial_checkpoint!r}',
    '--gin.TRAIN_STEPS=None',
    f'--gin.TRAIN_STEPS_RELATIVE={args.steps}',
    '--gin.BATCH_SIZE=8',
    f'--gin.BASE_LEARNING_RATE={args.learning_rate}',
    '--gin.LOSS_NORMALIZING_FACTOR="NUM_REAL_TARGET_TOKENS"',
    '--gin.DROPOUT_RATE=0.0',
    '--gin.LOG_PERIOD=20',
    '--gin.RANDOM_SEED=0',
  )
  aya_train('convert', f'{args.output}/run', f'{args.output}/hf', '--to', 'hf', '--overwrite')
  with open(args.csv, encoding='utf-8-sig', newline='') as file:
    rows = list(csv.DictReader(file))[:5]
  try:
    found = answers(args.output / 'hf', [row[args.question] for row in rows])
  except ImportError as error:
    print(f"\n{args.output}/hf is written; to load it: pip install 'aya-train[hf]' ({error})")
    return
  print()
  for row, answer in zip(rows, found, strict=True):
    print(f'{row[args.question]}  {answer}  (the row says: {row[args.answer]})')


def parse(words: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description='Fine-tune mT5 on a CSV, load it in transformers.')
  parser.add_argument('csv', type=pathlib.Path, help='rows with a header')
  parser.add_argument('output', type=pathlib.Path, help='folder for the run and the exported model')
  parser.add_argument('--question', default='question', help='column of the inputs')
  parser.add_argument('--answer', default='answer', help='column of the targets')
  parser.add_argument('--language', default='language', help='column of the language codes')
  parser.add_argument('--model', default='models/mt5_tiny.gin', help='gin file of the model')
  parser.add_argument('--initial_checkpoint', help='T5X, native or Hugging Face; default: random')
  parser.add_argument('--steps', type=int, default=100)
  parser.add_argument('--learning_rate', type=float, default=0.03, help='0.0003 for real weights')
  return parser.parse_args(words)


if __name__ == '__main__':
  run(parse(sys.argv[1:]))
