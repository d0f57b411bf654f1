"""A long run of a minute model: `python -m tests.faults.endurance --steps 20000`.

It saves, measures its validation loss and logs in between. Prints a JSON line: samples of its
memory (MB), descriptors and threads by step.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import threading
import time

import jax

from aya_train import train_loop, watchdog
from aya_train.checkpoint import manager
from tests import test_train_loop, tiny
from tests.faults import tiny_runs

MODEL = {'emb_dim': 2, 'num_heads': 1, 'num_encoder_layers': 1, 'num_decoder_layers': 1}
MODEL |= {'head_dim': 2, 'mlp_dim': 2, 'vocab_size': 96}


def sample() -> dict[str, float]:
  """What this process holds; Linux."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return {
    'megabytes': pages * os.sysconf('SC_PAGE_SIZE') / 2**20,
    'descriptors': len(os.listdir('/proc/self/fd')),
    'threads': len(os.listdir('/proc/self/task')),
  }


def main() -> None:
  parser = argparse.ArgumentParser(prog='python -m tests.faults.endurance', description=__doc__)
  parser.add_argument('--steps', type=int, default=20_000)
  args = parser.parse_args()
  test_train_loop.register_task()
  samples: list[dict[str, float]] = []
  ended = threading.Event()

  def watch() -> None:
    while not ended.wait(0.25):
      done = watchdog.standing().done
      if done.startswith('step '):
        samples.append({'step': int(done.removeprefix('step ')), **sample()})

  thread = threading.Thread(target=watch)
  thread.start()
  began = time.monotonic()
  try:
    with tempfile.TemporaryDirectory() as folder:
      root = pathlib.Path(folder)
      tiny_runs.set_up(root)
      given = tiny_runs.settings(
        root,
        root / 'run',
        model=tiny.model(**MODEL),
        total_steps=args.steps,
        checkpoint_cfg=manager.CheckpointConfig(period=max(1, args.steps // 20), keep=2),
        schedule=train_loop.Schedule(
          log_period=50, eval_period=max(1, args.steps // 40), eval_steps=2
        ),
        watchdog_cfg=watchdog.WatchdogConfig(600, None),
      )
      data = dataclasses.replace(given['train_dataset_cfg'], batch_size=2)
      state = train_loop.train(**{**given, 'train_dataset_cfg': data})
      parameters = sum(x.size for x in jax.tree.leaves(state.params))
  finally:
    ended.set()
    thread.join()
  samples.append({'step': args.steps, **sample()})
  found = {'parameters': parameters, 'seconds': time.monotonic() - began, 'samples': samples}
  print(json.dumps(found))


if __name__ == '__main__':
  main()
