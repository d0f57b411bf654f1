"""`aya-train contamination`."""

import argparse
import json
import os

from aya_train import destinations
from aya_train.cli import gin_args, number_args

SUMMARY = 'evaluation rows that are in the training data'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('mixture', help='mixture or task, whose train split is read')
  parser.add_argument(
    '--against', nargs='+', required=True, metavar='TASK[:SPLIT]', help='split: test'
  )
  parser.add_argument('--ngram', type=int, default=8, help='words of an n-gram; 13 is common too')
  parser.add_argument('--threshold', type=float, default=0.5, help='share of n-grams that counts')
  parser.add_argument('--min_words', type=int, default=5, help='shorter rows are not looked for')
  parser.add_argument(
    '--max_rows', type=int, help='rows of each training task to read; default: all'
  )
  parser.add_argument('--output', type=os.path.expanduser, help='JSON file of all that is found')
  parser.add_argument('--module', default='aya_train.tasks', help='registers the tasks')
  gin_args.add_tables(parser)
  gin_args.add_arguments(parser, required=False)


def run(args: argparse.Namespace) -> None:
  number_args.share(args, 'threshold')
  number_args.at_least(args, 1, 'ngram', 'min_words', 'max_rows')
  if args.gin_file:
    gin_args.set_up(args, require_all=False)
    gin_args.set_up_tables(args)
  else:
    gin_args.set_up_without_gin(args, args.module)
  from etils import epath

  from aya_train.data import task_registry
  from aya_train.tasks import storage
  from aya_train.tasks.eval import contamination

  if args.output:
    destinations.check_file(args.output, '--output')
  pairs = [(name.partition(':')[0], name.partition(':')[2] or 'test') for name in args.against]
  for name, split in [(args.mixture, 'train'), *pairs]:
    task_registry.tasks_with_split(task_registry.get_mixture_or_task(name), split)
  found = contamination.check(
    args.mixture,
    pairs,
    n=args.ngram,
    threshold=args.threshold,
    min_words=min(args.min_words, args.ngram),
    max_rows=args.max_rows,
  )
  if args.output:
    content = json.dumps(found.to_dict(), ensure_ascii=False, indent=1)
    storage.write_atomically(epath.Path(args.output), content)
  print(
    f'{len(found.matches):,} of {found.evaluation_rows:,} evaluation rows share '
    f'{args.threshold:.0%} of their {args.ngram}-grams with one of {found.training_rows:,} '
    f'training rows; {found.unchecked:,} were too short to look for'
  )
  for match in found.matches[:10]:
    print(f'  {match.overlap:4.0%} {match.evaluation}  <-  {match.example[:100]!r}')
  for task, count in list(found.contaminated_rows.items())[:10]:
    print(f'  {count:,} training rows of {task}')
