"""run.json of a MODEL_DIR: which model, vocabulary and seed the run in it has."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from aya_train import hosts
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
FILE = 'run.json'


def read(model_dir: epath.PathLike) -> dict[str, Any]:
  """The content of run.json, {} where there is none.

  Raises:
    ValueError: it is damaged.
  """
  path = epath.Path(model_dir) / FILE
  if not path.exists():
    return {}
  try:
    known = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is damaged ({error}): {_REMEDY}') from error
  if not isinstance(known, dict):
    raise ValueError(f'{path} is damaged (no JSON object): {_REMEDY}')
  return known


# What checkpoints say beside the model and the run: of their step, and for exports.
_OF_CHECKPOINTS = ('run', 'step', 'task_feature_lengths', 'dropout_rate')
_OF_THE_MODEL = {'architecture', 'vocabulary', 'objective', 'adapter'}
_REMEDY = (
  'expected what the run wrote about its model and seed. Where it has checkpoints, the command '
  'that trains it writes the file anew'
)


def read_or_recover(model_dir: epath.PathLike, saved: Mapping[str, Any] | None) -> dict[str, Any]:
  """The content of run.json; what a checkpoint says of it if it is lost, damaged or says otherwise.

  Args:
    model_dir: MODEL_DIR.
    saved: what was saved beside the arrays of the newest checkpoint; None if there is none. Then
      nothing is lost with run.json.

  Raises:
    ValueError: it is lost, and the checkpoint does not tell either.
  """
  try:
    known = read(model_dir)
    problem = 'is missing, or says nothing of the run'
  except ValueError as error:
    known, problem = {}, str(error).partition(': ')[0].rpartition(' is ')[2]
    problem = f'is {problem}'
  whole = {'architecture', 'seed', 'first_step'} <= known.keys()
  if whole and not (others := _others(known, saved or {})):
    return known
  if whole:
    problem = f'says another {", ".join(others)} than the newest checkpoint'
  if saved is None:
    if not known and (epath.Path(model_dir) / FILE).exists():
      logger.warning('%s %s, and nothing was saved yet: the run begins anew', model_dir, problem)
    return known
  if 'run' not in saved:
    raise ValueError(
      f'{epath.Path(model_dir) / FILE} {problem}, and the newest checkpoint does not say what was '
      'in it: put the file back, or start from the parameters (INITIAL_CHECKPOINT_PATH) in another '
      'MODEL_DIR'
    )
  logger.warning('%s %s: taken from the newest checkpoint', epath.Path(model_dir) / FILE, problem)
  described = {k: v for k, v in saved.items() if k not in _OF_CHECKPOINTS}
  return {**described, **saved['run']}


def _others(known: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
  """What run.json and a checkpoint, which has digests, both say of a run, and not the same."""
  pairs = {name: (known.get(name), value) for name, value in metadata.get('run', {}).items()}
  for name in {*known} & {*metadata} & _OF_THE_MODEL:
    mine, theirs = known[name], metadata[name]
    if isinstance(mine, dict) and isinstance(theirs, dict):  # versions may add to one of them
      both = [key for key in theirs if key in mine]
      mine, theirs = ([x[key] for key in both] for x in (mine, theirs))
    pairs[name] = mine, theirs
  return sorted(name for name, (mine, theirs) in pairs.items() if mine != theirs)


def write(model_dir: epath.PathLike, values: Mapping[str, Any]) -> None:
  """Writes run.json, unless it says just that; on the first host only."""
  if jax.process_index() == 0:
    path = epath.Path(model_dir) / FILE
    text = json.dumps(dict(values), indent=2, ensure_ascii=False)
    if not path.exists() or path.read_bytes() != text.encode():
      path.parent.mkdir(parents=True, exist_ok=True)
      storage.write_atomically(path, text)


def keep_text(path: epath.Path, text: str) -> bool:
  """Writes a text file; an older one that differs stays, as NAME.1.ENDING, NAME.2.ENDING ...

  Returns:
    Whether anything was written: not if the file holds the text already.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.exists():
    if (old := path.read_bytes()) == text.encode():
      return False
    number = 1
    while (kept := path.with_name(f'{path.stem}.{number}{path.suffix}')).exists():
      number += 1
    storage.write_atomically(kept, old)
    logger.info('%s has changed; what it was before is in %s', path, kept.name)
  storage.write_atomically(path, text)
  return True


def check(
  model_dir: epath.PathLike,
  known: Mapping[str, Any],
  mine: Mapping[str, Any],
  random_seed: int | None,
) -> None:
  """Refuses a directory that belongs to another run; writes nothing.

  Args:
    model_dir: MODEL_DIR.
    known: its run.json.
    mine: `architecture` of this run; `adapter`, `vocabulary`, `vocabulary_file`, `objective`, the
      settings of its loss, if it has any.
    random_seed: the seed asked for, None for any.

  Raises:
    ValueError: another model, vocabulary or seed; with both.
  """
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
    theirs, ours = known.get('objective') or {}, mine.get('objective') or {}
    others = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if others:
      others = ['loss'] if 'loss' in others else others
      listed = ', '.join(f'{n} {theirs.get(n)!r} there, {ours.get(n)!r} here' for n in others)
      raise ValueError(
        f'MODEL_DIR {model_dir} holds a run of another loss: {listed}. Take another MODEL_DIR; the '
        'run there may be what this one starts from (INITIAL_CHECKPOINT_PATH)'
      )
  if 'architecture' in known and known.get('adapter') != mine.get('adapter'):
    there, here = (x.get('adapter') or 'no adapter' for x in (known, mine))
    raise ValueError(
      f'MODEL_DIR {model_dir} holds a run with {there}, and this one has {here}: take another '
      'MODEL_DIR, or the LORA_ settings that it was begun with'
    )
  vocabulary = mine.get('vocabulary')
  if vocabulary is not None and known.get('vocabulary') not in (None, vocabulary):
    raise ValueError(
      f'MODEL_DIR {model_dir} holds a run with another vocabulary ({known["vocabulary_file"]}); '
      f'this one is {mine["vocabulary_file"]}. Take another MODEL_DIR or the same VOCABULARY_FILE'
    )
  if random_seed is not None and not 0 <= random_seed < 2**31:
    raise ValueError(f'RANDOM_SEED must be in [0, 2**31), got {random_seed}')
  seed = known.get('seed')
  if seed is not None and random_seed not in (None, seed):
    raise ValueError(
      f'MODEL_DIR {model_dir} was begun with RANDOM_SEED {seed}, got {random_seed}: a run keeps '
      'its seed; take another MODEL_DIR to change it'
    )


def drawn_seed(random_seed: int | None) -> int:
  """The seed of a run that begins, the same on all hosts: the one asked for, or any."""
  seed = time.time_ns() % 2**31 if random_seed is None else random_seed
  return int(hosts.first_says(seed))
