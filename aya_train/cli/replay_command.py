"""`aya-train replay`: steps of a run again, as a check for silent corruption."""

import argparse
import os
import pathlib
import tempfile

from aya_train import path_facts
from aya_train.cli import gin_args, host_args

SUMMARY = 'make steps of a run again, and compare the hashes of its state'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'model_dir',
    type=os.path.expanduser,
    metavar='MODEL_DIR',
    help='of the run; nothing in it is changed',
  )
  parser.add_argument('step', metavar='STEP', type=int, help='the last step to make again')
  gin_args.add_arguments(parser, required=False)
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  from etils import epath

  written = epath.Path(args.model_dir) / 'config.gin'
  if not path_facts.exists(written):
    raise FileNotFoundError(f'no {written.name} in {args.model_dir}: is it the MODEL_DIR of a run?')
  host_args.join(args)
  with tempfile.TemporaryDirectory() as folder:  # gin reads no buckets
    path = pathlib.Path(folder) / written.name
    path.write_text(written.read_text())
    args.gin_file = [str(path), *args.gin_file]
    gin_args.set_up(args)
  from aya_train import config, replay, state_digests, train_loop
  from aya_train.checkpoint import digests

  names = (
    *('model', 'train_dataset_cfg', 'partitioner', 'optimizer', 'learning_rate_fn'),
    *('initial_checkpoint_path', 'base_checkpoint_path', 'num_microbatches', 'nonfinite_cfg'),
  )
  bound = config.bound(train_loop.train)
  settings = {name: bound(name) for name in names}
  found = replay.replay(step=args.step, model_dir=args.model_dir, **settings)
  for i, state in enumerate(found.first, 1):
    note = found.nonfinite.get(found.start + i)
    print(
      f'step {found.start + i}  {digests.combined(state)}'
      + (f'  {note} became NaN or infinite' if note else '')
    )
  if faults := replay.faults(found, state_digests.computed_with()):
    raise ValueError('; '.join(faults))
  compared = ['both repetitions']
  if found.recorded:
    compared.append(f'{len(found.recorded)} of metrics.jsonl')
  if found.kept is not None:
    compared.append(f'the checkpoint of step {args.step}')
  print(f'same hash: {", ".join(compared)}')
