"""`aya-train convert`: a checkpoint in another format, with its model card, and onto the Hub."""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

from aya_train.cli import number_args

SUMMARY = 'turn a checkpoint into another format'
SENTENCE_TRANSFORMERS = 'sentence-transformers'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'src',
    type=os.path.expanduser,
    help='MODEL_DIR, a step folder in it, a T5X checkpoint_<step>, or a Hugging Face folder',
  )
  parser.add_argument('dst', type=os.path.expanduser, help='folder to make')
  parser.add_argument(
    '--to',
    choices=('hf', 'native', 't5x', 'peft', 'ct2', 'gguf', SENTENCE_TRANSFORMERS),
    default='hf',
    help='format of DST',
  )
  parser.add_argument(
    '--base',
    type=os.path.expanduser,
    help='if SRC, or one of --average, is an adapter: the weights under it, if not where it says; '
    'for --to peft what PEFT is to load it onto, a folder or an id on the Hub',
  )
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16', 'float16'),
    help='of the parameters; default: float32, or that of SRC where the format stays',
  )
  parser.add_argument(
    '--allow_float16_overflow',
    action='store_true',
    help='write float16 without trying whether activations fit',
  )
  parser.add_argument('--max_shard_size', help='of the safetensors files, default 5GB')
  parser.add_argument(
    '--vocabulary',
    type=os.path.expanduser,
    help='SentencePiece file, if the checkpoint does not name one',
  )
  parser.add_argument('--overwrite', action='store_true', help='replace DST if it exists')
  parser.add_argument(
    '--verify',
    action='store_true',
    help='open DST as a user does: arrays bit for bit, settings, token ids, and, if the model fits '
    'in memory, logits and answers',
  )
  parser.add_argument(
    '--allow_non_finite', action='store_true', help='write NaN and infinity where SRC holds them'
  )
  parser.add_argument(
    '--max_new_tokens',
    type=int,
    metavar='N',
    help='length of answers for generation_config.json; default: that of the targets of the run',
  )
  parser.add_argument(
    '--scan_layers',
    action=argparse.BooleanOptionalAction,
    help='stack layers; default: as in SRC where the format stays, else only native ones do',
  )

  group = parser.add_argument_group('embeddings', 'for --to sentence-transformers, ct2 and gguf')
  group.add_argument(
    '--max_length', type=int, metavar='N', help='tokens of a text; default: as trained, else 512'
  )
  group = parser.add_argument_group('mean of several checkpoints (souping)')
  group.add_argument(
    '--average',
    nargs='+',
    default=[],
    type=os.path.expanduser,
    metavar='CHECKPOINT',
    help='write the mean of SRC and these, weights alone',
  )
  group.add_argument(
    '--average_weights',
    nargs='+',
    type=float,
    metavar='W',
    help='of SRC and of these; default: all the same',
  )
  group = parser.add_argument_group('quantised', 'for --to ct2 and --to gguf')
  group.add_argument('--quantisation', help='ct2: int8_float32 ...; gguf: q8_0, q5_0, q4_0 ...')
  group.add_argument(
    '--examples',
    type=os.path.expanduser,
    help='JSON lines on which the loss of quality is measured',
  )
  group.add_argument('--num_examples', type=int, default=256, help='how many; 0 for none')
  group = parser.add_argument_group('Hugging Face Hub')
  group.add_argument('--license', default='apache-2.0', help='of the weights, for the model card')
  group.add_argument('--base_model', help='id on the Hub of the model that training started from')
  group.add_argument(
    '--evaluation',
    nargs='+',
    action='extend',
    default=[],
    type=os.path.expanduser,
    metavar='EVAL_OUTPUT_DIR',
    help='evaluations of SRC by `aya-train eval`, for the model card (--to hf)',
  )
  group.add_argument(
    '--push', metavar='REPO', help='upload DST; the token is that of hf auth login'
  )
  group.add_argument('--private', action='store_true', help='if the repository is new')


def run(args: argparse.Namespace) -> None:
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # no accelerator is needed, or held
  if args.evaluation and args.to != 'hf':
    raise ValueError(
      f'--evaluation goes into the model card of --to hf, not of {args.to}: its figures are of the '
      'weights as they were evaluated'
    )
  if args.push:
    from aya_train.export import hub

    if args.to in ('native', 't5x', 'peft'):
      raise ValueError(
        f'--push uploads what --to hf, ct2 or gguf writes, not {args.to} checkpoints'
      )
    hub.check(args.push)
  _convert(args)
  if args.push:
    print(hub.push(args.dst, args.push, private=args.private))


def _convert(args: argparse.Namespace) -> None:
  number_args.at_least(args, 2, 'max_length')
  number_args.at_least(args, 1, 'max_new_tokens')
  number_args.at_least(args, 0, 'num_examples')
  card = {'base_model': args.base_model, 'license': args.license}
  common = {
    'vocabulary_file': args.vocabulary,
    'overwrite': args.overwrite,
    'allow_float16_overflow': args.allow_float16_overflow,
  }
  if args.average_weights and not args.average:
    raise ValueError('--average_weights: give the other checkpoints with --average')
  if args.average and args.to not in ('hf', 'native', 't5x'):
    raise ValueError(
      f'--average writes hf, native and t5x checkpoints, not {args.to}: write --to native first, '
      'and convert that'
    )
  if args.to in ('ct2', 'gguf'):
    from aya_train.export import quantised

    quantised.quantise(
      args.src,
      args.dst,
      to=args.to,
      base=args.base,
      quantisation=args.quantisation,
      dtype=args.dtype or 'float32',
      examples_file=args.examples,
      num_examples=args.num_examples,
      verify=args.verify,
      max_length=args.max_length,
      **common,
      **card,
    )
  elif args.to == SENTENCE_TRANSFORMERS:
    from aya_train.export import sentence_folder

    sentence_folder.export(
      args.src,
      args.dst,
      base=args.base,
      dtype=args.dtype,
      vocabulary_file=args.vocabulary,
      max_shard_size=args.max_shard_size,
      max_length=args.max_length,
      overwrite=args.overwrite,
      verify=args.verify,
      **card,
    )
  else:
    from aya_train.checkpoint import convert

    convert.convert(
      args.src,
      args.dst,
      to=args.to,
      base=args.base,
      dtype=args.dtype,
      max_shard_size=args.max_shard_size,
      scan_layers=args.scan_layers,
      verify=args.verify,
      allow_non_finite=args.allow_non_finite,
      max_new_tokens=args.max_new_tokens,
      average=args.average,
      average_weights=args.average_weights,
      finish=_card_writer(args, card) if args.to == 'hf' else None,
      **common,
    )


def _card_writer(args: argparse.Namespace, card: Mapping[str, Any]) -> Callable[[Any], None]:
  """Writes model card and licence into an exported folder that has not got its name yet."""
  from aya_train.checkpoint import formats, work_folder

  source = formats.detect(args.src, args.base)
  from aya_train.export import evaluation_entries, model_card
  from aya_train.report import run_record

  model_dir = run_record.find(source.path)
  if model_dir is not None:
    model_card.read(model_dir)  # refuses damaged records before any work
  evaluations = evaluation_entries.read(args.evaluation, source.path) if args.evaluation else []
  return lambda folder: model_card.write(
    folder,
    folder,
    name=work_folder.resolved(args.dst).name,
    model_dir=model_dir,
    evaluations=evaluations,
    **card,
  )
