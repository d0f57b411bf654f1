"""`aya-train report`."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from aya_train import destinations
from aya_train.cli import gin_args, number_args, path_args, rating_args

if TYPE_CHECKING:
  from aya_train.report import run_record

logger = logging.getLogger(__name__)
SUMMARY = 'one HTML page about a run, evaluations, the data of a mixture, or what people prefer'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'what',
    nargs='+',
    metavar='MODEL_DIR | data MIXTURE | eval RUN... | preference FILE...',
    help='of the run; a mixture or task; folders of `eval`, [NAME=]EVAL_OUTPUT_DIR each; or '
    'exports of `annotate` and verdicts of `judge`',
  )
  parser.add_argument(
    '--output',
    type=os.path.expanduser,
    help='file to write: by default data_MIXTURE.html, eval_report.html, preference.html',
  )
  parser.add_argument(
    '--json', type=os.path.expanduser, help='of evaluations: a file for the same figures'
  )
  parser.add_argument(
    '--markdown', type=os.path.expanduser, help='of evaluations: a file for tables of a model card'
  )
  parser.add_argument(
    '--beside',
    type=lambda names: [name.strip() for name in names.split(',') if name.strip()],
    help='of evaluations: published models to draw beside them, default mT0-13B,BLOOMZ',
  )
  parser.add_argument(
    '--budget', type=int, help='of a data report: examples of a run, for the repeats'
  )
  parser.add_argument(
    '--annotations',
    nargs='+',
    default=[],
    type=os.path.expanduser,
    metavar='FILE',
    help='of a data report: what people exported who rated its data',
  )
  rating_args.add(parser, 'of preference: ')
  gin_args.add_tables(parser)
  gin_args.add_arguments(parser, required=False)
  parser.add_argument(
    '--hf', type=os.path.expanduser, help='exported folder: compare its answers with ours'
  )
  parser.add_argument('--prompts', type=int, default=12, help='how many answers to show')


# Of what each option is; one that would count for nothing is refused.
_COUNTS_FOR = {
  'output': ('data', 'eval', 'preference'),
  'json': ('eval',),
  'markdown': ('eval',),
  'beside': ('eval',),
  'budget': ('data',),
  'annotations': ('data',),
  'hf': ('a run',),
}


def _refuse_other_options(args: argparse.Namespace) -> None:
  is_named = len(args.what) > 1 and args.what[0] in ('data', 'eval', 'preference')
  kind = args.what[0] if is_named else 'a run'
  for name, kinds in _COUNTS_FOR.items():
    if getattr(args, name) and kind not in kinds:
      where = '; the page of a run lies in its folder' if kind == 'a run' else ''
      raise ValueError(
        f'--{name} counts for reports of {" and ".join(kinds)}, and this is of {kind}{where}: '
        'leave it away'
      )


def run(args: argparse.Namespace) -> None:
  _refuse_other_options(args)
  if args.what[0] == 'data' and len(args.what) == 2:
    path = _report_data(args.what[1], args)
  elif args.what[0] == 'preference' and len(args.what) > 1:
    path = _report_preference(args)
  elif args.what[0] == 'eval' and len(args.what) > 1:
    path = _report_eval(args.what[1:], args)
  elif len(args.what) == 1:
    path = _report_run(os.path.expanduser(args.what[0]), args)
  else:
    raise ValueError(
      'report what? Give MODEL_DIR, `data` and a mixture, `eval` and folders of evaluations, or '
      f'`preference` and files; got {args.what}'
    )
  print(f'wrote {path}')


def _report_run(model_dir: str, args: argparse.Namespace) -> object:
  number_args.at_least(args, 0, 'prompts')
  from aya_train.report import run_page, run_record

  record = run_record.read_measured(model_dir)
  _set_up_tasks(record)
  return run_page.write(record, hf_dir=args.hf, num_prompts=args.prompts)


def _report_preference(args: argparse.Namespace) -> object:
  from aya_train.report import preference_page

  files = [path_args.named(path) for path in args.what[1:]]
  rating = rating_args.rating(args)
  return preference_page.write(files, args.output or preference_page.PAGE, rating)


def _set_up_tasks(record: run_record.Run) -> None:
  """Registers the tasks of a run as they were when it was trained, as far as its data is here."""
  from aya_train import config

  for module in record.imports:
    if module.startswith('aya_train.') and not module.startswith('aya_train.tasks'):
      continue  # it registers no tasks, and may have moved since
    gin_args.import_tasks(module, f'an import of {record.model_dir}/config.gin')
  config.configure_vocabulary(record.macro)
  if (module := record.macro('MIXTURE_OR_TASK_MODULE')) is not None:
    gin_args.import_tasks(module)
  try:
    config.configure_data(record.macro)
  except (OSError, ValueError) as error:  # the page may be made where the data is not
    logger.warning('the data of the run is not all at hand: %s', error)


def _report_data(name: str, args: argparse.Namespace) -> object:
  from aya_train import config
  from aya_train.report import data_page

  directory = lengths = None
  if args.gin_file:
    gin_args.set_up(args, require_all=False)
    directory, lengths = config.macro('PREPARED_DIR'), config.macro('TASK_FEATURE_LENGTHS')
    gin_args.set_up_tables(args)
  else:
    gin_args.set_up_without_gin(args)
  output = args.output or f'data_{name}.html'
  destinations.check_file(output, '--output')
  return data_page.write(
    name,
    output,
    prepared_dir=directory,
    lengths=lengths,
    budget=args.budget or data_page.AYA_SAMPLES,
    annotations=args.annotations,
  )


def _report_eval(runs: list[str], args: argparse.Namespace) -> object:
  from aya_train.report import eval_page, published_figures

  output = args.output or eval_page.PAGE
  for path, name in ((output, '--output'), (args.json, '--json'), (args.markdown, '--markdown')):
    if path is not None:
      destinations.check_file(path, name)
  return eval_page.write(
    [path_args.named(run) for run in runs],
    output,
    json_output=args.json,
    markdown_output=args.markdown,
    beside=published_figures.BESIDE if args.beside is None else args.beside,
  )
