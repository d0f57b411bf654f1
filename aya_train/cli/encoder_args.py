"""Arguments of the commands that make vectors of a checkpoint, and what they make of them."""

import argparse
import os
from typing import Any

from aya_train.cli import host_args, number_args


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds CHECKPOINT and how its vectors are made."""
  parser.add_argument(
    'checkpoint',
    type=os.path.expanduser,
    help='MODEL_DIR of an embedding run or of any other, one of its steps, a T5X checkpoint, a '
    'Hugging Face folder, a folder of sentence-transformers or of CTranslate2',
  )
  group = parser.add_argument_group('vectors')
  group.add_argument(
    '--dimension', type=int, metavar='N', help='first numbers of each vector (Matryoshka)'
  )
  group.add_argument(
    '--max_length', type=int, metavar='N', help='tokens of a text; default: as trained, else 512'
  )
  group.add_argument('--batch_size', type=int, default=64, metavar='N', help='texts at a time (64)')
  group.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  group.add_argument(
    '--vocabulary', type=os.path.expanduser, help='SentencePiece file, if CHECKPOINT names none'
  )
  group.add_argument(
    '--model_parallel', type=int, default=1, metavar='N', help='devices that share each matrix'
  )
  group.add_argument(
    '--shard_weights', action='store_true', help='keep the weights in parts on all devices'
  )
  host_args.add_arguments(parser)


def open_encoder(args: argparse.Namespace) -> Any:
  """The `text_encoder.TextEncoder` that the arguments ask for, on all devices.

  Raises:
    ValueError, FileNotFoundError: see `encoder_checkpoint.open_checkpoint` and `TextEncoder`.
  """
  from aya_train import ct2_library
  from aya_train.embedding import ct2_vectors, encoder_checkpoint, text_encoder

  number_args.at_least(args, 2, 'max_length')
  host_args.join(args)
  settings = text_encoder.Settings(
    args.dimension, args.max_length, args.batch_size, args.dtype, args.vocabulary
  )
  if ct2_library.is_encoder_folder(args.checkpoint):
    if args.model_parallel != 1 or args.shard_weights or args.dtype != 'float32':
      raise ValueError(
        f'{args.checkpoint} is a CTranslate2 model, which computes in the types it was written in, '
        'on one device: leave out --model_parallel, --shard_weights and --dtype'
      )
    return ct2_vectors.Ct2TextEncoder(args.checkpoint, settings)
  partitioner = text_encoder.partitioner(args.model_parallel, shard_weights=args.shard_weights)
  checkpoint = encoder_checkpoint.open_checkpoint(args.checkpoint)
  return text_encoder.TextEncoder(checkpoint, partitioner, settings)


def add_prompts(parser: argparse.ArgumentParser, names: tuple[str, ...], default: str) -> None:
  """Adds `--prompt_name`, one of the checkpoint's, and `--prompt`, a text of one's own."""
  group = parser.add_mutually_exclusive_group()
  group.add_argument(
    '--prompt_name', help=f'one of the prompts of the checkpoint: {", ".join(names)} ({default})'
  )
  group.add_argument('--prompt', help='text that is put before each text')
