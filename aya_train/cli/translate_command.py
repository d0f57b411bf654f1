"""`aya-train translate`: a data set into other languages, by a translation model."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

SUMMARY = 'translate instruction data into other languages, with checks of each row'
_SHOWN = 4  # reasons of a language


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'source',
    type=os.path.expanduser,
    metavar='SOURCE',
    help='file of rows with inputs and targets (JSON lines, parquet, compressed), or a SeqIO task',
  )
  parser.add_argument('--to', required=True, metavar='CODES', help='languages, with commas')
  parser.add_argument('--output', required=True, type=os.path.expanduser, help='folder to write')
  parser.add_argument('--from', dest='from_', default='eng', help='language of the source')
  parser.add_argument('--engine', choices=['ct2', 'identity'], default='ct2')
  parser.add_argument('--model', type=os.path.expanduser, help='folder of a CTranslate2 model')
  parser.add_argument('--model_name', help="what to call it; default: its folder's name")
  parser.add_argument('--model_license', help='of the weights; known for the releases')
  parser.add_argument(
    '--prompt', help="of a model that is told in words: 'Translate to {language}: {text}'"
  )
  parser.add_argument('--name', help='of the data set; default: from SOURCE')
  parser.add_argument('--license', help='of the source, several between ;')
  parser.add_argument('--attribution', help='whom to name for the source')
  parser.add_argument('--policy', help='use class that both licences must admit')
  parser.add_argument('--split', default='train', help='of a SeqIO task')
  parser.add_argument('--columns', default='inputs,targets', help='to translate, with commas')
  parser.add_argument(
    '--thresholds', type=os.path.expanduser, help='.toml file: [default], and a table a language'
  )
  parser.add_argument('--rows', type=int, help='the first so many')
  parser.add_argument('--rows_of_unit', type=int, default=1_000)
  parser.add_argument('--beam_size', type=int, default=4)
  parser.add_argument('--batch_tokens', type=int, default=8_192)
  parser.add_argument('--device', default='auto', help='cpu, cuda or auto')
  parser.add_argument('--device_index', default='0', help='of GPUs, with commas')
  parser.add_argument(
    '--compute_type', default='default', help="as CTranslate2's: int8, float16 .."
  )
  parser.add_argument('--threads', type=int, default=0, help='of the processor, for each worker')
  parser.add_argument('--workers', type=int, default=1, help='processes')
  parser.add_argument('--beam_runner', help='DirectRunner, FlinkRunner, DataflowRunner ...')
  parser.add_argument('--beam_options', default='', help="Beam's own options in one string")


def run(args: argparse.Namespace) -> None:
  from aya_train.tasks.building import work_runner
  from aya_train.translation import translation_run, translation_units

  if args.engine == 'ct2' and not args.model:
    raise ValueError('--engine ct2 needs --model FOLDER')
  if not args.license:
    raise ValueError('--license: the licence of the source, which what is made of it inherits')
  options: dict[str, Any] = {}
  if args.engine == 'ct2':
    options = {
      'folder': args.model,
      'name': args.model_name or '',
      'beam_size': args.beam_size,
      'device': args.device,
      'compute_type': args.compute_type,
      'threads': args.threads,
    }
    if args.prompt:
      options |= {'prompt': args.prompt, 'family': 'prompted'}
  settings: dict[str, Any] = {
    'columns': args.columns.split(','),
    'batch_tokens': args.batch_tokens,
    'thresholds': _thresholds(args.thresholds),
  }
  runner = (
    work_runner.beam(args.beam_runner, args.beam_options.split())
    if args.beam_runner
    else work_runner.processes(args.workers)
  )
  name = args.name or os.path.basename(args.source).split('.')[0]
  report = translation_run.translate(
    _rows(args),
    translation_run.Source(name, args.from_, args.license, args.attribution or ''),
    [code.strip() for code in args.to.split(',') if code.strip()],
    args.output,
    translation_units.EngineSpec(
      args.engine, options, tuple(int(i) for i in args.device_index.split(','))
    ),
    settings=settings,
    model_license=args.model_license or '',
    policy=args.policy or '',
    rows_of_unit=args.rows_of_unit,
    runner=runner,
    progress=print,
  )
  for language, counts in report['languages'].items():
    worst = sorted(counts['rejected'].items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
    why = f' ({", ".join(f"{reason} {n:,}" for reason, n in worst)})' if worst else ''
    print(f'{language}: {counts["accepted"]:,} of {counts["rows"]:,} rows accepted{why}')
  print(f'written: {os.path.join(args.output, translation_run.TABLE)}')


def _thresholds(path: str | None) -> Mapping[str, Any]:
  if path is None:
    return {}
  with open(path, 'rb') as file:
    return tomllib.load(file)


def _rows(args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
  import itertools

  found = _file_rows(args.source) if os.path.exists(args.source) else _task_rows(args)
  return itertools.islice(found, args.rows)


def _file_rows(path: str) -> Iterator[Mapping[str, Any]]:
  from aya_train.tasks.building import records

  for where, record in records.read(path):
    if isinstance(record, records.BadRecord):
      raise ValueError(f'{path} {where}: {record.detail}')
    yield record


def _task_rows(args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
  """Rows of a task before its preprocessors."""
  import seqio

  from aya_train.cli import gin_args

  gin_args.import_tasks('aya_train.tasks')
  if args.source not in seqio.TaskRegistry.names():
    raise ValueError(f'{args.source} is neither a file nor a SeqIO task')
  data = seqio.TaskRegistry.get(args.source).source.get_dataset(args.split, shuffle=False)
  for row in data.as_numpy_iterator():
    yield {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
