"""`aya-train prepare`: data sets of sources, and the tokens of a recipe's tasks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container
from typing import TYPE_CHECKING

from aya_train.cli import gin_args, number_args

if TYPE_CHECKING:
  from aya_train.data import prepare

_OF_FILES = (
  'data_dir',
  'output_dir',
  'revision',
  'languages',
  'beam_runner',
  'beam_options',
  'xp3x_templates',
)
"""Options that say how released files are read and where their data sets go."""

SUMMARY = 'build data sets; with gin files, tokenise their mixture'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'source',
    nargs='*',
    help="SOURCE or SOURCE.CONSTITUENT (docs/data.md lists them); 'cldr' needs no download",
  )
  parser.add_argument(
    '--data_dir',
    type=os.path.expanduser,
    help='folder or gs://... of the released files; default: hub',
  )
  parser.add_argument(
    '--output_dir', type=os.path.expanduser, help='TFDS data directory; default: in the cache'
  )
  parser.add_argument('--revision', help='branch, tag or commit on the hub')
  parser.add_argument('--languages', default='', help='codes to keep, with commas')
  parser.add_argument('--num_shards', type=int, default=0, help='files of each split or task')
  parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes')
  parser.add_argument('--beam_runner', help='DirectRunner, FlinkRunner, DataflowRunner ...')
  parser.add_argument(
    '--beam_options', default='', help="Beam's own options in one string, '--project=p --region=r'"
  )
  parser.add_argument(
    '--max_bad_rows', type=float, default=0.01, help='share of rows that may be left out as bad'
  )
  parser.add_argument('--max_bad_files', type=int, default=0, help='damaged files left out')
  parser.add_argument('--max_characters', type=int, default=200_000, help='longest row to keep')
  parser.add_argument(
    '--xp3x_templates', type=os.path.expanduser, help='file of DATASET<tab>TEMPLATE lines to keep'
  )
  gin_args.add_arguments(parser, required=False)


def run(args: argparse.Namespace) -> None:
  if not args.source and not args.gin_file:
    raise ValueError("prepare what? Name a source ('cldr') or give --gin_file")
  number_args.at_least(args, 0, 'num_shards', 'max_bad_files')
  number_args.at_least(args, 1, 'workers', 'max_characters')
  number_args.share(args, 'max_bad_rows')
  if args.gin_file:
    gin_args.check(args, require_all=False)
  gin_args.import_tasks('aya_train.tasks')
  from aya_train.data import prepare

  _refuse_what_does_not_count(args, prepare.GENERATED)
  settings = _settings(args)
  if args.gin_file:
    _prepare_recipe(args, settings)
  else:
    prepare.build_sources(args.source, settings)


def _refuse_what_does_not_count(args: argparse.Namespace, generated: Container[str]) -> None:
  if not all(name in generated for name in args.source):
    return
  names = _OF_FILES if args.gin_file else (*_OF_FILES, 'num_shards')
  if given := [f'--{name}' for name in names if getattr(args, name)]:
    made = ' '.join(args.source) or 'a recipe'
    raise ValueError(
      f'{", ".join(given)}: counts for sources that are read from files, and not for {made}. What '
      'is made goes to the cache, which AYA_TRAIN_CACHE names, and tokens to the macro PREPARED_DIR'
    )


def _prepare_recipe(args: argparse.Namespace, settings: prepare.PrepareSettings) -> None:
  """Builds the sources that are named, then tokenises what the gin files train and evaluate on."""
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # no accelerator is needed, or held
  gin_args.set_up(args, require_all=False)
  from aya_train import config, preflight, train_loop
  from aya_train.data import prepare

  if config.macro('MIXTURE_OR_TASK_NAME') is None:
    raise ValueError(
      'MIXTURE_OR_TASK_NAME has no value: give a recipe, or --gin.MIXTURE_OR_TASK_NAME'
    )
  config.check_licenses()
  bound = config.bound(train_loop.train)
  start = config.macro('INITIAL_CHECKPOINT_PATH')
  if config.defines('MODEL') and not prepare.makes_vocabulary(args.source):
    preflight.check_vocabulary(bound('model'), start)
  prepare.build_sources(args.source, settings)
  parts = preflight.check_prepare(
    bound('model') if config.defines('MODEL') else None,
    start,
    bound('train_dataset_cfg'),
    bound('train_eval_dataset_cfg'),
    bound('infer_eval_cfg'),
  )
  prepare.tokenise(
    parts,
    settings,
    config.macro('MIXTURE_OR_TASK_MODULE', 'aya_train.tasks'),
    config.macro('DATASET_TABLES') or (),
  )


def _settings(args: argparse.Namespace) -> prepare.PrepareSettings:
  from aya_train.data import prepare
  from aya_train.tasks.building import read_report, text_files

  templates: tuple[str, ...] = ()
  if args.xp3x_templates:
    templates = tuple(text_files.lines(text_files.read(args.xp3x_templates)))
  return prepare.PrepareSettings(
    data_dir=args.data_dir,
    output_dir=args.output_dir,
    revision=args.revision,
    languages=tuple(code for code in args.languages.split(',') if code),
    num_shards=args.num_shards,
    workers=args.workers,
    beam_runner=args.beam_runner,
    beam_options=tuple(args.beam_options.split()),
    limits=read_report.SkipLimits(args.max_bad_rows, args.max_bad_files),
    max_characters=args.max_characters,
    templates=templates,
  )
