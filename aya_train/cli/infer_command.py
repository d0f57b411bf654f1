"""`aya-train infer`."""

import argparse
import os

from aya_train.cli import gin_args, host_args

SUMMARY = 'answers of a checkpoint to prompts'
AS_CHECKPOINT = 'checkpoint'
DECODING = ('greedy', 'beams', 't5x_beams', 'aya_sampling')  # files of gin/decoding


def add_arguments(parser: argparse.ArgumentParser) -> None:
  gin_args.add_arguments(parser, required=True)
  parser.add_argument('--checkpoint', type=os.path.expanduser, help='CHECKPOINT_PATH')
  parser.add_argument(
    '--prompt', action='append', default=[], help='a prompt, PROMPTS of gin; repeatable'
  )
  parser.add_argument(
    '--prompts_file',
    type=os.path.expanduser,
    help="PROMPTS_FILE: lines of text, or JSON lines; '-' is standard input",
  )
  parser.add_argument(
    '--output_file',
    type=os.path.expanduser,
    help="OUTPUT_FILE, '-' is standard output, the default",
  )
  parser.add_argument('--num_samples', type=int, help='NUM_SAMPLES, answers to each prompt')
  parser.add_argument(
    '--decoding',
    choices=(*DECODING, AS_CHECKPOINT),
    help='a file of gin/decoding, read last; or as generation_config.json of the checkpoint says',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace an output file of something else'
  )
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  from aya_train import config, inference

  add_bindings(args)
  host_args.join(args)
  gin_args.set_up(args)
  config.call(inference.infer)


def add_bindings(args: argparse.Namespace) -> None:
  """Turns the command's own arguments into gin files and bindings, before those that were given."""
  macros = {
    'CHECKPOINT_PATH': args.checkpoint,
    'PROMPTS': tuple(args.prompt) or None,
    'PROMPTS_FILE': args.prompts_file,
    'OUTPUT_FILE': args.output_file,
    'NUM_SAMPLES': args.num_samples,
    'OVERWRITE': args.overwrite or None,
    'DECODE_AS_CHECKPOINT': args.decoding == AS_CHECKPOINT or None,
  }
  mine = [f'{name} = {value!r}' for name, value in macros.items() if value is not None]
  args.gin_bindings = [*mine, *args.gin_bindings]
  if args.decoding in DECODING:
    args.gin_file = [*args.gin_file, f'decoding/{args.decoding}.gin']
