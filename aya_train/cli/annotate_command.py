"""`aya-train annotate`."""

from __future__ import annotations

import argparse
import json
import os

from aya_train.cli import gin_args, number_args, rating_args

SUMMARY = 'pages on which people compare answers or rate data, and what they decided'
_EACH = {'pairs': 200, 'data': 20}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  kinds = parser.add_subparsers(dest='kind', required=True, metavar='pairs | data | collect')
  pairs = kinds.add_parser('pairs', help='two answers to each prompt, of systems nobody sees')
  pairs.add_argument(
    'answers',
    nargs='+',
    type=os.path.expanduser,
    metavar='ANSWERS',
    help='of each system: EVAL_OUTPUT_DIR of `eval`, or a JSON-lines file of `infer`; two or more',
  )
  pairs.add_argument('--names', nargs='+', help='of the systems, default: after their files')
  pairs.add_argument('--tasks', nargs='+', default=[], metavar='TASK', help='only these')
  data = kinds.add_parser('data', help='rows of each source of a mixture: approve, edit, skip')
  data.add_argument('mixture', metavar='MIXTURE', help='or task')
  data.add_argument('--split', default='train')
  data.add_argument('--rows', type=int, help='first rows of each task to draw from')
  gin_args.add_tables(data)
  gin_args.add_arguments(data, required=False)
  for kind, sub in (('pairs', pairs), ('data', data)):
    sub.add_argument('--output', type=os.path.expanduser, required=True, help='folder to write')
    what = 'prompts of a language' if kind == 'pairs' else 'rows of a source and language'
    sub.add_argument('--each', type=int, default=_EACH[kind], help=f'{what}, default {_EACH[kind]}')
    sub.add_argument('--languages', nargs='+', default=[], metavar='CODE', help='only these')
    sub.add_argument('--seed', type=int, default=0, help='of the sample and of all orders')
    sub.add_argument('--together', action='store_true', help='one page for all languages')
  collect = kinds.add_parser('collect', help='exports as one JSON-lines file')
  collect.add_argument('exports', nargs='+', type=os.path.expanduser, metavar='FILE')
  collect.add_argument('--output', type=os.path.expanduser, required=True, help='file to write')
  rating_args.add(collect)
  for sub in (pairs, data, collect):  # as every command has them
    sub.add_argument('--debug', action='store_true', default=argparse.SUPPRESS, help='as above')
    sub.add_argument('--verbose', action='store_true', default=argparse.SUPPRESS, help='as above')


def run(args: argparse.Namespace) -> None:
  if args.kind == 'collect':
    _collect(args)
    return
  number_args.at_least(args, 1, 'each')
  if args.kind == 'data':
    number_args.at_least(args, 1, 'rows')
  from aya_train import destinations
  from aya_train.annotation import batch_files, batches

  destinations.check_folder(args.output, '--output')
  items = _pairs(args) if args.kind == 'pairs' else _data(args)
  mode = batches.PAIRS if args.kind == 'pairs' else batches.DATA
  made = batches.split(mode, items, args.together)
  for batch, page in zip(made, batch_files.write(made, args.output), strict=True):
    print(f'wrote {page} ({len(batch.items)} items)')


def _pairs(args: argparse.Namespace) -> list:
  from aya_train import system_answers
  from aya_train.annotation import answer_pairs, batches

  if len(args.answers) < 2:
    raise ValueError(f'give the answers of two systems or more, got {args.answers}')
  names = args.names or system_answers.system_names(args.answers)
  if len({*names}) != len(args.answers) or len(names) != len(args.answers):
    raise ValueError(f'--names: {len(args.answers)} different names are needed, got {names}')
  found = answer_pairs.read(dict(zip(names, args.answers, strict=True)), args.tasks)
  wanted = {batches.language_of(code) for code in args.languages}
  kept = [row for row in found if not wanted or batches.language_of(row.language) in wanted]
  if not kept:
    there = sorted({batches.language_of(row.language) for row in found})
    raise ValueError(f'no answers in {sorted(wanted)}; there are answers in {there}')
  return batches.pairs(kept, args.each, args.seed)


def _data(args: argparse.Namespace) -> list:
  from aya_train.annotation import batches, data_samples

  if args.gin_file:
    gin_args.set_up(args, require_all=False)
    gin_args.set_up_tables(args)
  else:
    gin_args.set_up_without_gin(args)
  rows = data_samples.of_mixture(
    args.mixture,
    split=args.split,
    each=args.each,
    seed=args.seed,
    languages=args.languages,
    rows_looked_at=args.rows,
  )
  return batches.data_items(rows, args.seed)


def _collect(args: argparse.Namespace) -> None:
  from etils import epath

  from aya_train import destinations
  from aya_train.annotation import exports
  from aya_train.tasks import storage

  destinations.check_file(args.output, '--output')
  found = exports.read(args.exports, rating_args.rating(args))
  if found.verdicts and found.ratings:
    raise ValueError('some files compare answers and some rate data: collect them apart')
  lines = [v.to_dict() for v in found.verdicts] or [
    r.to_row() for r in found.ratings if r.decision != exports.SKIPPED
  ]
  text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines)
  storage.write_atomically(epath.Path(args.output), text.encode('utf-8', 'backslashreplace'))
  print(f'wrote {args.output} ({len(lines)} lines)')
