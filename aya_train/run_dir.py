"""run.json of a MODEL_DIR: which model, vocabulary and seed the run in it has."""

import json
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from aya_train import hosts

FILE = 'run.json'


def read(model_dir: epath.PathLike) -> dict[str, Any]:
  """The content of run.json, {} where there is none."""
  path = epath.Path(model_dir) / FILE
  return json.loads(path.read_text()) if path.exists() else {}


def write(model_dir: epath.PathLike, **values: Any) -> None:
  """Adds values to run.json; on the first host only."""
  if jax.process_index() == 0:
    path = epath.Path(model_dir) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{FILE}.partial')
    partial.write_text(json.dumps({**read(model_dir), **values}, indent=2, ensure_ascii=False))
    partial.replace(path)


def check(model_dir: epath.PathLike, mine: Mapping[str, Any], random_seed: int | None) -> None:
  """Refuses a directory that belongs to another run; writes nothing.

  Args:
    model_dir: MODEL_DIR.
    mine: `architecture` of this run, and `vocabulary` and `vocabulary_file` if it has any.
    random_seed: the seed asked for, None for any.

  Raises:
    ValueError: another model, vocabulary or seed; with both.
  """
  if not str(model_dir).strip():
    raise ValueError('MODEL_DIR is empty: give a folder or bucket')
  known = read(model_dir)
  if theirs := known.get('architecture'):
    differ = {
      name: (theirs.get(name), value)
      for name, value in mine['architecture'].items()
      if theirs.get(name) != value
    }
    if differ:
      listed = ', '.join(
        f'{name} {old!r} there, {new!r} here' for name, (old, new) in differ.items()
      )
      raise ValueError(
        f'MODEL_DIR {model_dir} holds a run of another model: {listed}. Take another MODEL_DIR'
      )
  vocabulary = mine.get('vocabulary')
  if vocabulary is not None and known.get('vocabulary') not in (None, vocabulary):
    raise ValueError(
      f'MODEL_DIR {model_dir} holds a run with another vocabulary ({known["vocabulary_file"]}); '
      f'this one is {mine["vocabulary_file"]}. Take another MODEL_DIR or the same VOCABULARY_FILE'
    )
  seed = known.get('seed')
  if seed is not None and random_seed not in (None, seed):
    raise ValueError(
      f'MODEL_DIR {model_dir} was begun with RANDOM_SEED {seed}, got {random_seed}: a run keeps '
      'its seed; take another MODEL_DIR to change it'
    )


def claim(model_dir: epath.PathLike, mine: Mapping[str, Any], random_seed: int | None) -> int:
  """Writes run.json unless it is there, and returns the run's seed, the same on all hosts.

  Args and errors: as `check`.
  """
  check(model_dir, mine, random_seed)
  seed = read(model_dir).get('seed')
  if seed is None:
    seed = time.time_ns() % 2**31 if random_seed is None else random_seed
    seed = int(hosts.first_says(seed))
    write(model_dir, **mine, seed=seed)
  return seed
