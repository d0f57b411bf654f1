"""What trials do in their children: tiny runs, preparations, conversions and evaluations."""

import os
import pathlib
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import jax
import numpy as np

from aya_train import metric_writer, partitioning, train_loop
from aya_train.checkpoint import convert, manager
from aya_train.data import batching, prepared, prepared_shards
from aya_train.evaluation import evaluation, infer_eval
from tests import test_train_loop, tiny

TASK = 'tests.copy'
STATE = 'state.npz'
_LENGTHS = {'inputs': 16, 'targets': 8}


def set_up(folder: pathlib.Path) -> None:
  """What a child does first: one CPU device, and programs that are compiled once."""
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', 1)
  jax.config.update('jax_compilation_cache_dir', str(folder / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def settings(folder: pathlib.Path, model_dir: pathlib.Path, **changes: Any) -> dict[str, Any]:
  schedule = train_loop.Schedule(log_period=1, eval_period=100, eval_steps=2)
  return test_train_loop.settings(
    model_dir, folder / 'prepared', **{'schedule': schedule, **changes}
  )


def train(
  folder: pathlib.Path, model_dir: pathlib.Path, steps: int, use_async: bool, **changes: Any
) -> None:
  """A run that saves every second step, and leaves its last state beside its checkpoints."""
  set_up(folder)
  config = manager.CheckpointConfig(period=2, use_async=use_async)
  changes = {'total_steps': steps, 'checkpoint_cfg': config, **changes}
  state = train_loop.train(**settings(folder, model_dir, **changes))
  np.savez(model_dir / STATE, *map(np.asarray, jax.tree.leaves(jax.device_get(state))))


def prepare(folder: pathlib.Path, to: pathlib.Path) -> None:
  prepared.prepare_task(TASK, 'train', to, num_shards=3)


def prepare_in_shards(folder: pathlib.Path, to: pathlib.Path) -> None:
  prepared_shards.prepare_tasks([TASK], 'train', to, num_shards=0, module='tests.test_train_loop')


def contents(to: pathlib.Path) -> list[list[list[int]]]:
  """All examples of the one task that was prepared there."""
  (manifest,) = to.glob('*/[!.]*/manifest.json')
  task = prepared.PreparedTask(manifest.parent)
  return sorted([[v.tolist() for v in task[i].values()] for i in range(len(task))])


def convert_to(source: pathlib.Path, out: pathlib.Path, to: str) -> None:
  # A native folder as it is would not change.
  layout = {'scan_layers': False} if to == 'native' else {}
  convert.convert(source, out, to=to, overwrite=True, verify=False, **layout)


def evaluate(folder: pathlib.Path, model_dir: pathlib.Path, out: pathlib.Path) -> None:
  set_up(folder)
  evaluation.evaluate(
    model=tiny.model(dropout_rate=0.1),
    checkpoint_path=str(model_dir),
    partitioner=partitioning.Partitioner(
      {'data': 1, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()[:1]
    ),
    output_dir=str(out),
    dataset_cfg=batching.DatasetConfig(
      TASK, _LENGTHS, 'validation', batch_size=4, shuffle=False,
      prepared_dir=str(folder / 'prepared'),
    ),
    infer_eval_cfg=infer_eval.InferEvalConfig(TASK, _LENGTHS, batch_size=8, num_examples=24),
  )  # fmt: skip


def losses(model_dir: pathlib.Path) -> dict[int, float]:
  """Loss of each step, as a report shows it."""
  return {r['step']: r['loss'] for r in metric_writer.read(model_dir) if r['kind'] == 'train'}


def same_state(one: pathlib.Path, other: pathlib.Path) -> bool:
  """Whether two runs ended with the same bits."""
  with np.load(one / STATE) as a, np.load(other / STATE) as b:
    return a.files == b.files and all(
      a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a.files
    )
