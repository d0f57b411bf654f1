"""The command line: `aya-train COMMAND ...`. Parses arguments, then calls what gin configured.

Errors end in one message and exit code 1 (2 for wrong usage); `--debug` shows the traceback.
"""

import argparse
import contextlib
import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aya_train import destinations, hosts

EPILOG = """examples:
  aya-train prepare cldr
  aya-train train --gin_file=models/mt5_tiny.gin --gin_file=recipes/sft_smoke.gin \\
    --gin_file=hardware/cpu_local.gin --gin.MODEL_DIR='"runs/smoke"'
  aya-train convert runs/smoke runs/smoke/hf --to hf --overwrite
  aya-train precompile --gin_file=aya101.gin --topology=v4-128
"""


def _add_gin_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
  parser.add_argument(
    '--gin_file', action='append', default=[], required=required, help='gin file; repeatable'
  )
  parser.add_argument(
    '--gin_bindings',
    action='append',
    default=[],
    help="override, 'NAME = VALUE'; --gin.NAME=VALUE is the same",
  )
  parser.add_argument(
    '--gin_search_paths', default='', help='folders in which gin files are looked for, with commas'
  )


def _add_host_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('several hosts', 'start the same command on each of them')
  group.add_argument(
    '--multihost',
    action='store_true',
    help='find the other hosts through the environment (TPU, Slurm)',
  )
  group.add_argument('--coordinator_address', help='host:port of process 0, where nothing tells it')
  group.add_argument('--num_processes', type=int)
  group.add_argument('--process_id', type=int)


def _add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'source',
    nargs='*',
    help="SOURCE or SOURCE.CONSTITUENT (docs/data.md lists them); 'cldr' needs no download",
  )
  parser.add_argument('--data_dir', help='folder or gs://... of the released files; default: hub')
  parser.add_argument('--output_dir', help='TFDS data directory; default: in the cache')
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
  parser.add_argument('--xp3x_templates', help='file of DATASET<tab>TEMPLATE lines to keep')


def _join_hosts(args: argparse.Namespace) -> None:
  if not (args.multihost or args.coordinator_address):
    return
  hosts.join(args.coordinator_address, args.num_processes, args.process_id)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='aya-train',
    description='Fine-tunes mT5 on the Aya instruction data and exports it to Hugging Face.',
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  common = argparse.ArgumentParser(add_help=False)
  common.add_argument('--debug', action='store_true', help='show the traceback of an error')
  common.add_argument('--verbose', action='store_true', help="show the libraries' log lines too")
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def command(name: str, run: Callable[[argparse.Namespace], None], summary: str):
    sub = commands.add_parser(name, help=summary, description=summary, parents=[common])
    sub.set_defaults(run=run)
    return sub

  for name, run, summary in (
    ('train', _train, 'fine-tune as the gin files say'),
    ('eval', _eval, 'loss and metrics of a checkpoint'),
    ('infer', _infer, 'answers of a checkpoint to prompts'),
  ):
    sub = command(name, run, summary)
    _add_gin_arguments(sub, required=True)
    _add_host_arguments(sub)

  sub = command('prepare', _prepare, 'build data sets; with gin files, tokenise their mixture')
  _add_prepare_arguments(sub)
  _add_gin_arguments(sub, required=False)

  sub = command('precompile', _precompile, 'compile the training step for a TPU slice, without one')
  _add_gin_arguments(sub, required=True)
  sub.add_argument('--topology', required=True, help='public name of a slice: v4-128, v5e-16 ...')
  sub.add_argument('--output_dir', default='.', help='where precompile_<slice>.json and .html go')

  sub = command('plan', _plan, 'find the best mesh, remat and microbatches for a TPU slice')
  _add_gin_arguments(sub, required=True)
  sub.add_argument('--topology', required=True, help='public name of a slice: v4-128, v5e-16 ...')
  sub.add_argument('--output_dir', default='.', help='where plan_<slice>.gin and its table go')
  sub.add_argument('--max_compilations', type=int, default=8, help='stop after as many')

  sub = command('convert', _convert, 'turn a checkpoint into another format')
  sub.add_argument(
    'src', help='MODEL_DIR, a step folder in it, a T5X checkpoint_<step>, or a Hugging Face folder'
  )
  sub.add_argument('dst', help='folder to make')
  sub.add_argument(
    '--to', choices=('hf', 'native', 't5x', 'ct2', 'gguf'), default='hf', help='format of DST'
  )
  sub.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16', 'float16'),
    help='of the parameters; default: float32, or that of SRC where the format stays',
  )
  sub.add_argument(
    '--allow_float16_overflow',
    action='store_true',
    help='write float16 without trying whether activations fit',
  )
  sub.add_argument('--max_shard_size', help='of the safetensors files, default 5GB')
  sub.add_argument('--vocabulary', help='SentencePiece file, if the checkpoint does not name one')
  sub.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
  sub.add_argument(
    '--verify',
    action='store_true',
    help='read every array back and compare it bit for bit, and logits if the model fits in memory',
  )
  sub.add_argument(
    '--scan_layers',
    action=argparse.BooleanOptionalAction,
    help='stack layers; default: as in SRC where the format stays, else only native ones do',
  )

  group = sub.add_argument_group('quantised', 'for --to ct2 and --to gguf')
  group.add_argument('--quantisation', help='ct2: int8_float32 ...; gguf: q8_0, q5_0, q4_0 ...')
  group.add_argument('--examples', help='JSON lines on which the loss of quality is measured')
  group.add_argument('--num_examples', type=int, default=256, help='how many; 0 for none')
  group = sub.add_argument_group('Hugging Face Hub')
  group.add_argument('--license', default='apache-2.0', help='of the weights, for the model card')
  group.add_argument('--base_model', help='id on the Hub of the model that training started from')
  group.add_argument(
    '--push', metavar='REPO', help='upload DST; the token is that of hf auth login'
  )
  group.add_argument('--private', action='store_true', help='if the repository is new')

  sub = command('report', _report, 'one HTML page about a run, or about the data of a mixture')
  sub.add_argument(
    'what', nargs='+', metavar='MODEL_DIR | data MIXTURE', help='of the run; or a mixture or task'
  )
  sub.add_argument('--output', help='of a data report: file to write, default data_MIXTURE.html')
  sub.add_argument(
    '--budget', type=int, help='of a data report: examples of a run, for the repeats'
  )
  _add_gin_arguments(sub, required=False)
  sub.add_argument('--hf', help='exported folder: compare its answers with ours')
  sub.add_argument('--prompts', type=int, default=12, help='how many answers to show')

  sub = command('contamination', _contamination, 'evaluation rows that are in the training data')
  sub.add_argument('mixture', help='mixture or task, whose train split is read')
  sub.add_argument(
    '--against', nargs='+', required=True, metavar='TASK[:SPLIT]', help='split: test'
  )
  sub.add_argument('--ngram', type=int, default=8, help='words of an n-gram; 13 is common too')
  sub.add_argument('--threshold', type=float, default=0.5, help='share of n-grams that counts')
  sub.add_argument('--min_words', type=int, default=5, help='shorter rows are not looked for')
  sub.add_argument('--max_rows', type=int, help='rows of each training task to read; default: all')
  sub.add_argument('--output', help='JSON file of all that is found')
  sub.add_argument('--module', default='aya_train.tasks', help='registers the tasks')
  _add_gin_arguments(sub, required=False)
  return parser


def _parse_gin(args: argparse.Namespace, require_all: bool = True) -> None:
  from aya_train import config

  paths = [path for path in args.gin_search_paths.split(',') if path]
  config.parse(args.gin_file, args.gin_bindings, paths, require_all=require_all)
  _import_tasks(config.macro('MIXTURE_OR_TASK_MODULE', 'aya_train.tasks'))
  config.configure_data()


def _import_tasks(module: str) -> None:
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise ValueError(f'MIXTURE_OR_TASK_MODULE {module!r} cannot be imported: {error}') from error
  except Exception as error:
    if module.startswith('aya_train.'):
      raise
    at = traceback.extract_tb(error.__traceback__)[-1]
    raise ValueError(
      f'MIXTURE_OR_TASK_MODULE {module!r} cannot be imported: {type(error).__name__}: {error} '
      f'({at.filename}, line {at.lineno})'
    ) from error


def _train(args: argparse.Namespace) -> None:
  from aya_train import config, train_loop
  from aya_train.data import data_manifest

  _join_hosts(args)
  _parse_gin(args)
  policy = config.check_licenses()
  on_data = data_manifest.writer(policy)
  config.call(train_loop.train, on_start=config.write, on_data=on_data)


def _eval(args: argparse.Namespace) -> None:
  from aya_train import config, evaluation

  _join_hosts(args)
  _parse_gin(args)
  config.call(evaluation.evaluate)


def _infer(args: argparse.Namespace) -> None:
  from aya_train import config, inference

  _join_hosts(args)
  _parse_gin(args)
  config.call(inference.infer)


def _prepare(args: argparse.Namespace) -> None:
  if not args.source and not args.gin_file:
    raise ValueError("prepare what? Name a source ('cldr') or give --gin_file")
  _import_tasks('aya_train.tasks')
  from aya_train.data import prepare

  settings = _prepare_settings(args)
  if not args.gin_file:
    prepare.build_sources(args.source, settings)
    return
  from aya_train import config, preflight, train_loop

  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # no accelerator is needed, or held
  _parse_gin(args, require_all=False)
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


def _prepare_settings(args: argparse.Namespace):
  from aya_train.data import prepare
  from aya_train.tasks.building import read_report

  templates: tuple[str, ...] = ()
  if args.xp3x_templates:
    with open(args.xp3x_templates, encoding='utf-8') as file:
      templates = tuple(file.read().splitlines())
  return prepare.Settings(
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


def _precompile(args: argparse.Namespace) -> None:
  from aya_train.tpu import precompile, precompile_page, topologies

  slice_ = _slice(args)
  destinations.check_folder(args.output_dir, '--output_dir')
  result = precompile.compile_job(slice_, precompile.job(slice_), precompile.settings())
  print(precompile_page.text(result))
  for path in precompile_page.write(result, args.output_dir):
    print(f'wrote {path}')
  if not result.fits:
    raise ValueError(f'the training step does not fit {topologies.get(args.topology).name}')


def _plan(args: argparse.Namespace) -> None:
  from aya_train.tpu import plan

  destinations.check_folder(args.output_dir, '--output_dir')
  path = plan.plan(_slice(args), args.output_dir, args.max_compilations)
  print(f'wrote {path}')


def _slice(args: argparse.Namespace) -> Any:
  from aya_train import config
  from aya_train.tpu import topologies

  slice_ = topologies.get(args.topology)
  topologies.require_libtpu()
  os.environ['JAX_PLATFORMS'] = 'cpu'
  paths = [path for path in args.gin_search_paths.split(',') if path]
  config.parse(args.gin_file, args.gin_bindings, paths, require_all=False)
  return slice_


def _convert(args: argparse.Namespace) -> None:
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # no accelerator is needed, or held
  from aya_train.checkpoint import convert

  if args.push:
    from aya_train.export import hub

    if args.to in ('native', 't5x'):
      raise ValueError(
        f'--push uploads what --to hf, ct2 or gguf writes, not {args.to} checkpoints'
      )
    hub.check(args.push)
  card = {'base_model': args.base_model, 'licence': args.license}
  common = {
    'vocabulary_file': args.vocabulary,
    'overwrite': args.overwrite,
    'allow_float16_overflow': args.allow_float16_overflow,
  }
  if args.to in ('ct2', 'gguf'):
    _import_tensorflow(args.verbose)
    from aya_train.export import quantised

    quantised.quantise(
      args.src,
      args.dst,
      to=args.to,
      quantisation=args.quantisation,
      dtype=args.dtype or 'float32',
      examples_file=args.examples,
      num_examples=args.num_examples,
      **common,
      **card,
    )
  else:
    convert.convert(
      args.src,
      args.dst,
      to=args.to,
      dtype=args.dtype,
      max_shard_size=args.max_shard_size,
      scan_layers=args.scan_layers,
      verify=args.verify,
      finish=_card_writer(args, card) if args.to == 'hf' else None,
      **common,
    )
  if args.push:
    print(hub.push(args.dst, args.push, private=args.private))


def _card_writer(args: argparse.Namespace, card: Mapping[str, Any]) -> Callable[[Any], None]:
  """Writes model card and licence into an exported folder that has not got its name yet."""
  from aya_train.checkpoint import formats, work_folder

  source = formats.detect(args.src)
  _import_tensorflow(args.verbose)
  from aya_train.export import model_card

  model_dir = model_card.find_run(source.path)
  if model_dir is not None:
    model_card.read_run(model_dir)  # refuses damaged records before any work
  return lambda folder: model_card.write(
    folder, folder, name=work_folder.resolved(args.dst).name, model_dir=model_dir, **card
  )


def _report(args: argparse.Namespace) -> None:
  if args.what[0] == 'data' and len(args.what) == 2:
    path = _report_data(args.what[1], args)
  elif len(args.what) == 1:
    from aya_train.report import run_page

    path = run_page.run_report(args.what[0], hf_dir=args.hf, num_prompts=args.prompts)
  else:
    raise ValueError(f'report what? Give MODEL_DIR, or `data` and a mixture; got {args.what}')
  print(f'wrote {path}')


def _report_data(name: str, args: argparse.Namespace) -> object:
  from aya_train import config
  from aya_train.report import data_page

  directory = lengths = None
  if args.gin_file:
    _parse_gin(args, require_all=False)
    directory, lengths = config.macro('PREPARED_DIR'), config.macro('TASK_FEATURE_LENGTHS')
  else:
    _import_tasks('aya_train.tasks')
  output = args.output or f'data_{name}.html'
  destinations.check_file(output, '--output')
  return data_page.write(
    name,
    output,
    prepared_dir=directory,
    lengths=lengths,
    budget=args.budget or data_page.AYA_SAMPLES,
  )


def _contamination(args: argparse.Namespace) -> None:
  if args.gin_file:
    _parse_gin(args, require_all=False)
  else:
    _import_tasks(args.module)
  from aya_train.tasks.eval import contamination

  if args.output:
    destinations.check_file(args.output, '--output')
  pairs = [(name.partition(':')[0], name.partition(':')[2] or 'test') for name in args.against]
  found = contamination.check(
    args.mixture,
    pairs,
    n=args.ngram,
    threshold=args.threshold,
    min_words=min(args.min_words, args.ngram),
    max_rows=args.max_rows,
  )
  if args.output:
    with open(args.output, 'w', encoding='utf-8') as file:
      json.dump(found.to_dict(), file, ensure_ascii=False, indent=1)
  print(
    f'{len(found.matches):,} of {found.evaluation_rows:,} evaluation rows share {args.threshold:.0%} '
    f'of their {args.ngram}-grams with one of {found.training_rows:,} training rows; '
    f'{found.unchecked:,} were too short to look for'
  )
  for match in found.matches[:10]:
    print(f'  {match.overlap:4.0%} {match.evaluation}  <-  {match.example[:100]!r}')
  for task, count in list(found.contaminated_rows.items())[:10]:
    print(f'  {count:,} training rows of {task}')


def _quiet_libraries(verbose: bool) -> None:
  """Leaves the log to our own lines: TensorFlow and Orbax fill a screen before the first step."""
  logging.basicConfig(format='%(asctime)s %(message)s', datefmt='%H:%M:%S', stream=sys.stderr)
  logging.getLogger('aya_train').setLevel(logging.INFO)
  if verbose:
    logging.getLogger().setLevel(logging.INFO)
    return
  for handler in logging.getLogger().handlers:
    handler.addFilter(lambda record: record.name.startswith('aya_train'))
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('GRPC_VERBOSITY', 'NONE')
  from absl import logging as absl_logging

  absl_logging.set_verbosity(absl_logging.ERROR)


def _import_tensorflow(verbose: bool) -> None:
  """Imports TensorFlow without its start-up lines, which takes seconds; before what needs SeqIO.

  Triton, which comes with CUDA builds of torch, goes first where it is installed: imported after
  TensorFlow it ends the process (both bring an LLVM), and transformers imports it.
  """
  with contextlib.nullcontext() if verbose else _without_stderr():
    with contextlib.suppress(ImportError):
      importlib.import_module('triton')
    import tensorflow_text  # noqa: F401


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
  """Drops what compiled code writes to the terminal; it comes back if something fails.

  TensorFlow's start-up lines ignore TF_CPP_MIN_LOG_LEVEL, and bury the one line a user waits for.
  """
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as sink:
    os.dup2(sink.fileno(), 2)
    try:
      yield
    except BaseException:
      os.dup2(kept, 2)
      sink.seek(0)
      sys.stderr.write(sink.read().decode(errors='replace'))
      raise
    finally:
      os.dup2(kept, 2)
      os.close(kept)


def _is_of_bucket(error: BaseException) -> bool:
  """Whether TensorFlow's file systems, which epath uses for buckets, raised it."""
  return type(error).__module__.startswith('tensorflow') and '://' in str(error)


def _message(error: BaseException) -> str:
  """The error's own words, without the call chain that gin appends to them."""
  text = str(error).split('\n  In call to configurable')[0].strip()
  if destinations.is_full(error) and not isinstance(error, OSError):
    return f'the disk is full ({text.splitlines()[0]})'
  if _is_of_bucket(error):
    return f'a path in a bucket cannot be reached: {" ".join(text.split())}'
  if isinstance(error, KeyError):
    text = text.strip('\'"')
  return text if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: {text}'


def main(argv: Sequence[str]) -> int:
  """Runs one command. Returns the exit code: 0, 1 on an error, 2 on wrong usage, 3 when another host
  is missing or lost, 130 when stopped."""
  from aya_train.cli.gin_args import rewrite_gin_args

  try:
    args = _parser().parse_args(rewrite_gin_args(argv))
  except ValueError as error:
    print(f'aya-train: error: {error}', file=sys.stderr)
    return 2
  _quiet_libraries(args.verbose)
  if args.command != 'convert':
    _import_tensorflow(args.verbose)
  try:
    args.run(args)
  except KeyboardInterrupt:
    return 130
  except Exception as error:
    if args.debug:
      traceback.print_exc()
    if hosts.is_lost(error):
      print(f'aya-train {args.command}: error: {hosts.LOST_HOST} ({error})', file=sys.stderr)
      return 3
    print(f'aya-train {args.command}: error: {_message(error)}', file=sys.stderr)
    if isinstance(error, hosts.JoinError):
      return 3
    expected = isinstance(error, ValueError | OSError)
    if not (expected or destinations.is_full(error) or _is_of_bucket(error)):
      print('This looks like a defect; --debug shows where.', file=sys.stderr)
    return 1
  return 0


def console() -> None:
  """Entry point of the `aya-train` script."""
  argv = sys.argv[1:]
  joins = any(word.startswith(('--multihost', '--coordinator_address')) for word in argv)
  with hosts.watched() if joins else contextlib.nullcontext():
    code = main(argv)
  hosts.leave(code)
