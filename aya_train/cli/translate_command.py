"""`aya-train translate`: a data set into other languages, by a translation model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aya_train.cli import gin_args, number_args

if TYPE_CHECKING:
  from aya_train.tasks.building import work_runner
  from aya_train.translation import instruction_rows, translation_jobs

SUMMARY = 'translate instruction data into other languages, with checks of each row'
_SHOWN = 4  # reasons of a language


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'source',
    type=os.path.expanduser,
    metavar='SOURCE_OR_TABLE',
    help='a SeqIO task or built source, a table of data sets (.toml, .yaml), or a file of rows '
    '(JSON lines, CSV, parquet, Arrow, TFRecord)',
  )
  parser.add_argument('--to', required=True, metavar='CODES', help='languages, with commas')
  parser.add_argument('--output', required=True, type=os.path.expanduser, help='folder to write')
  parser.add_argument(
    '--from', dest='from_', default='eng', help='language of the rows that are translated'
  )
  parser.add_argument('--engine', choices=['ct2', 'identity'], default='ct2')
  parser.add_argument('--model', type=os.path.expanduser, help='folder of a CTranslate2 model')
  parser.add_argument('--model_name', help="what to call it; default: its folder's name")
  parser.add_argument(
    '--model_license', help="of the weights; NLLB's, MADLAD-400's and M2M-100's are known"
  )
  parser.add_argument(
    '--prompt', help="of a model that is told in words: 'Translate to {language}: {text}'"
  )
  parser.add_argument(
    '--name', help='of what comes out, tasks NAME.LANGUAGE; default: of the source, and _translated'
  )
  parser.add_argument('--datasets', help='of a table, with commas; default: all')
  parser.add_argument('--license', help='of the source, several between ;')
  parser.add_argument('--attribution', help='whom to name for the source')
  parser.add_argument('--policy', help='use class that all licences must admit')
  parser.add_argument('--split', default='train', help='of the source')
  parser.add_argument('--columns', default='inputs,targets', help='to translate, with commas')
  parser.add_argument('--module', default='aya_train.tasks', help='registers the tasks')
  gin_args.add_tables(parser)
  parser.add_argument(
    '--thresholds', type=os.path.expanduser, help='.toml file: [default], and a table a language'
  )
  parser.add_argument(
    '--back_translation', action='store_true', help='translate back, and reject what is lost'
  )
  parser.add_argument(
    '--back_model', type=os.path.expanduser, help='folder of the model that does; default: --model'
  )
  parser.add_argument('--scorer', help='function that scores translations, as MODULE:FUNCTION')
  parser.add_argument('--scorer_license', help='of the scorer')
  parser.add_argument('--rows', type=int, help='the first so many')
  parser.add_argument(
    '--sample', type=int, default=0, help='rows drawn for each language, for each another sample'
  )
  parser.add_argument('--rows_of_unit', type=int, default=1_000)
  parser.add_argument('--beam_size', type=int, default=4)
  parser.add_argument('--batch_tokens', type=int, default=8_192)
  parser.add_argument('--max_output_tokens', type=int, default=512, help='of a sentence')
  parser.add_argument('--longest', type=int, default=600, help='characters of a sentence')
  parser.add_argument('--device', default='auto', help='cpu, cuda or auto')
  parser.add_argument('--device_index', default='0', help='of GPUs, with commas')
  parser.add_argument(
    '--compute_type', default='default', help="as CTranslate2's: int8, float16 ..."
  )
  parser.add_argument('--threads', type=int, default=0, help='of the processor, for each worker')
  parser.add_argument('--workers', type=int, help='processes; default: one for each device')
  parser.add_argument('--beam_runner', help='DirectRunner, FlinkRunner, DataflowRunner ...')
  parser.add_argument('--beam_options', default='', help="Beam's own options in one string")
  parser.add_argument(
    '--price_per_hour', type=float, help='of all devices together, for the estimate'
  )
  parser.add_argument('--dry_run', action='store_true', help='stop after the estimate')


def run(args: argparse.Namespace) -> None:
  from aya_train import destinations
  from aya_train.translation import instruction_rows

  if args.engine == 'ct2' and not args.model:
    raise ValueError('--engine ct2 needs --model FOLDER')
  number_args.at_least(args, 0, 'sample', 'threads')
  number_args.at_least(args, 1, 'rows', 'rows_of_unit', 'workers', 'beam_size', 'batch_tokens')
  number_args.at_least(args, 1, 'max_output_tokens', 'longest')
  number_args.finite(args, 'price_per_hour', lowest=0)
  gin_args.import_tasks(args.module, '--module')
  gin_args.set_up_tables(args)
  destinations.check_folder(args.output, '--output')
  found = instruction_rows.find(
    args.source,
    language=args.from_,
    split=args.split,
    columns=_listed(args.columns),
    only=_listed(args.datasets or ''),
  )
  if args.name and len(found) > 1:
    raise ValueError(
      f'--name is of one data set, and {args.source} has {len(found)}: choose one with --datasets'
    )
  for each in found:
    output = args.output
    if len(found) > 1:
      output = os.path.join(args.output, each.source.name)
    _translate(each, output, args)


def _translate(found: instruction_rows.Found, output: str, args: argparse.Namespace) -> None:
  import dataclasses
  import itertools

  from aya_train.translation import translation_output, translation_run

  asked = {'makes': args.name, 'license': args.license, 'attribution': args.attribution}
  found.source = dataclasses.replace(found.source, **{k: v for k, v in asked.items() if v})
  if not found.source.license:
    raise ValueError('--license: the licence of the source, which what is made of it inherits')
  devices = _devices(args.device_index)
  workers = len(devices) if args.workers is None else args.workers
  report = translation_run.translate(
    itertools.islice(found.rows(), args.rows),
    found.source,
    _listed(args.to),
    output,
    _engine(args, args.model, devices),
    back=_engine(args, args.back_model or args.model, devices) if args.back_translation else None,
    settings={
      'columns': _listed(args.columns),
      'batch_tokens': args.batch_tokens,
      'longest': args.longest,
      'thresholds': _thresholds(args.thresholds),
      'scorer': args.scorer or '',
    },
    rights=translation_run.Rights(
      args.model_license or '', args.scorer_license or '', args.policy or ''
    ),
    rows_of_unit=args.rows_of_unit,
    sample=args.sample,
    workers=workers,
    runner=_runner(args, workers),
    price=args.price_per_hour,
    dry_run=args.dry_run,
    progress=print,
  )
  if line := found.left_out_line():
    print(line)
  if not report:
    return
  for language, counts in report['languages'].items():
    worst = sorted(counts['rejected'].items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
    why = f' ({", ".join(f"{reason} {n:,}" for reason, n in worst)})' if worst else ''
    print(f'{language}: {counts["accepted"]:,} of {counts["rows"]:,} rows accepted{why}')
  if any(counts['accepted'] for counts in report['languages'].values()):
    print(f'written: {os.path.join(output, translation_output.TABLE)}')
  else:
    print(f'no row was accepted: {os.path.join(output, translation_output.REJECTS)} says why')


def _engine(
  args: argparse.Namespace, model: str, devices: tuple[int, ...]
) -> translation_jobs.EngineSpec:
  from aya_train.translation import translation_jobs

  if args.engine != 'ct2':
    return translation_jobs.EngineSpec(args.engine, {}, devices)
  options: dict[str, Any] = {
    'folder': model,
    'name': (args.model_name or '') if model == args.model else '',
    'beam_size': args.beam_size,
    'device': args.device,
    'compute_type': args.compute_type,
    'threads': args.threads,
    'max_output_tokens': args.max_output_tokens,
  }
  if args.prompt:
    options |= {'prompt': args.prompt, 'family': 'prompted'}
  return translation_jobs.EngineSpec('ct2', options, devices)


def _runner(args: argparse.Namespace, workers: int) -> work_runner.Runner:
  from aya_train.tasks.building import work_runner

  if args.beam_runner:
    return work_runner.beam(args.beam_runner, args.beam_options.split())
  return work_runner.processes(workers)


def _devices(text: str) -> tuple[int, ...]:
  try:
    return tuple(int(part) for part in _listed(text))
  except ValueError as error:
    raise ValueError(f'--device_index {text!r}: expected numbers with commas, 0,1') from error


def _listed(text: str) -> Sequence[str]:
  return [part.strip() for part in text.split(',') if part.strip()]


def _thresholds(path: str | None) -> Mapping[str, Any]:
  if path is None:
    return {}
  from aya_train.tasks.building import text_files

  return text_files.toml(path)
