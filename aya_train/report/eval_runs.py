"""Evaluations as they lie on disk: results.json and predictions/*.jsonl of some folders."""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.tasks import eval_tasks

_OF_TASKS = ('lengths', 'seed')  # settings that may differ
_KEYS = ('checkpoint', 'step', 'model', 'settings', 'tasks')
_DEEPEST = 3  # folders below a RUN in which evaluations of its steps are looked for
_SHOWN = 5
_EARLIER = 'earlier'  # a folder of an output folder: evaluations of other checkpoints


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation output folder.

  Attributes:
    run: name of the run that it belongs to; evaluations of one RUN have one name.
    folder: where it lies.
    checkpoint, fingerprint: what was evaluated, and of its files; '' if unknown.
    step: of the checkpoint, None or 0 if unknown.
    model: what kind of model, in words.
    settings: of the evaluation, as they were written.
    results: task -> its figures; those that are no finite number are left out, see `problems`.
    problems: what could not be read, in sentences.
  """

  run: str
  folder: epath.Path
  checkpoint: str
  step: int | None
  model: str
  settings: Mapping[str, Any]
  results: Mapping[str, eval_tasks.Result]
  problems: Sequence[str] = ()
  fingerprint: str = ''

  @property
  def name(self) -> str:
    return f'{self.run}, step {self.step:,}' if self.step else self.run

  @property
  def short(self) -> str:
    """For columns: the run, and the step in few characters."""
    return f'{self.run} @ {self.step}' if self.step else self.run


def read_all(runs: Sequence[str]) -> list[Evaluation]:
  """Evaluations of several runs: in the order given, inside a run by step.

  Args:
    runs: folders, each of one evaluation or with those of several steps somewhere inside; or
      'NAME=FOLDER', which gives the run a name. Else it is called by its folder.

  Raises:
    FileNotFoundError: a folder has no results.json.
    ValueError: a results.json is damaged or of another program; two runs have one name.
  """
  found: list[Evaluation] = []
  folders = [(name, epath.Path(folder)) for name, folder in map(_named, runs)]
  for name, folder in zip(_names(folders), (f for _, f in folders), strict=True):
    evaluations = [read(path, name) for path in _inside(folder)]
    found += sorted(evaluations, key=lambda e: (-1 if e.step is None else e.step, str(e.folder)))
  return found


def _named(run: str) -> tuple[str, str]:
  name, equals, folder = run.partition('=')
  if not equals or '/' in name or path_facts.exists(run):
    return '', run
  if not name or not folder:
    raise ValueError(f'RUN {run!r}: expected FOLDER or NAME=FOLDER')
  return name, folder


def _names(folders: Sequence[tuple[str, epath.Path]]) -> list[str]:
  """Given names, else the shortest ends of paths that tell the runs apart."""
  given = [name for name, _ in folders if name]
  paths = [path.resolve() if '://' not in str(path) else path for name, path in folders if not name]
  if len({*given}) < len(given) or len({*map(str, paths)}) < len(paths):
    told = [name or str(path) for name, path in folders]
    raise ValueError(f'two runs are the same, or have one name: {told}')
  length = 1
  while len({_end(path, length) for path in paths} | {*given}) < len(folders) and length < 64:
    length += 1
  ends = iter([_end(path, length) for path in paths])
  return [name or next(ends) for name, _ in folders]


def _end(path: epath.Path, length: int) -> str:
  return '/'.join([part for part in path.parts if part not in ('/', '')][-length:]) or str(path)


def _inside(folder: epath.Path) -> list[epath.Path]:
  if path_facts.exists(folder / eval_tasks.RESULTS):
    return [*_with_result(folder / _EARLIER), folder]
  level = [folder] if path_facts.is_dir(folder) else []
  for _ in range(_DEEPEST):
    children = [c for parent in level for c in sorted(parent.iterdir()) if c.is_dir()]
    level = [c for c in children if c.name not in (eval_tasks.PREDICTIONS, _EARLIER)]
    found = [child for child in level if path_facts.exists(child / eval_tasks.RESULTS)]
    if found:
      return [e for child in found for e in (*_with_result(child / _EARLIER), child)]
  raise FileNotFoundError(
    f'no {eval_tasks.RESULTS} in {folder} or in the folders inside it'
    + ('' if path_facts.is_dir(folder) else ', which is no folder')
    + ': give the EVAL_OUTPUT_DIR of an `aya-train eval`, or a folder that holds several'
  )


def _with_result(folder: epath.Path) -> list[epath.Path]:
  children = sorted(folder.iterdir()) if path_facts.is_dir(folder) else []
  return [child for child in children if path_facts.exists(child / eval_tasks.RESULTS)]


def read(folder: epath.PathLike, run: str = '') -> Evaluation:
  """One evaluation; single tasks that cannot be read are told in `problems` and left out.

  Raises:
    FileNotFoundError: there is no results.json.
    ValueError: it is no JSON, or is not of this package.
  """
  folder = epath.Path(folder)
  path = folder / eval_tasks.RESULTS
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no {eval_tasks.RESULTS} in {folder}: has the evaluation begun?')
  values = _json(path)
  problems: list[str] = []
  results: dict[str, eval_tasks.Result] = {}
  for name, written in values['tasks'].items():
    try:
      results[name] = _result(name, written, problems)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
      problems.append(f'task {name} is left out, its entry in {path} cannot be read: {error}')
  problems += _unlike(results)
  if not values['tasks']:
    problems.append(f'{path} has no tasks yet')
  problems += _left_out(values.get('left_out'))
  step = values.get('step')
  model, settings = values.get('model'), values.get('settings')
  settings = settings if isinstance(settings, dict) else {}
  return Evaluation(
    run or folder.name,
    folder,
    str(values.get('checkpoint') or ''),
    step if isinstance(step, int) else None,
    _in_words(model, settings),
    {**settings, 'model': model} if isinstance(model, dict) else settings,
    results,
    problems,
    str(values.get('fingerprint') or ''),
  )


def _unlike(results: Mapping[str, eval_tasks.Result]) -> list[str]:
  """Settings that commands changed between tasks; lengths belong to a task."""
  found: dict[str, dict[str, list[str]]] = {}
  for name, result in results.items():
    for key, value in result.settings.items():
      if key not in _OF_TASKS:
        found.setdefault(key, {}).setdefault(json.dumps(value, sort_keys=True), []).append(name)
  return [
    f'tasks were evaluated with different {key}: '
    + '; '.join(f'{value}: {_some(names)}' for value, names in by_value.items())
    for key, by_value in found.items()
    if len(by_value) > 1
  ]


def _some(names: Sequence[str]) -> str:
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more


def _left_out(reasons: Any) -> list[str]:
  """Tasks that the evaluation could not measure, by the reason."""
  names: dict[str, list[str]] = {}
  for name, reason in reasons.items() if isinstance(reasons, dict) else ():
    names.setdefault(str(reason), []).append(str(name))
  return [f'not evaluated, {reason}: {_some(found)}' for reason, found in names.items()]


def _in_words(model: Any, settings: Mapping[str, Any]) -> str:
  """A model as one line: its format, size and what it computes in."""
  if not isinstance(model, dict):
    return str(model or '')
  network = model.get('architecture')
  network = network if isinstance(network, dict) else {}
  layers = [network.get(f'num_{side}_layers') for side in ('encoder', 'decoder')]
  parts = [settings.get('format'), settings.get('activation_dtype')]
  if None not in layers and 'emb_dim' in network:
    parts.append(f'{layers[0]} + {layers[1]} layers of width {network["emb_dim"]}')
  return ', '.join(str(part) for part in parts if part)


def _json(path: epath.Path) -> dict[str, Any]:
  try:
    values = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{path} is damaged ({error}): run `aya-train eval` again, it goes on where it was'
    ) from error
  tasks = values.get('tasks') if isinstance(values, dict) else None
  if not isinstance(tasks, dict):
    keys = sorted(values)[:8] if isinstance(values, dict) else type(values).__name__
    raise ValueError(
      f'{path} is no result of `aya-train eval`: expected an object with the keys '
      f'{list(_KEYS)}, "tasks" being an object; got {keys}'
    )
  return values


def _result(name: str, written: Mapping[str, Any], problems: list[str]) -> eval_tasks.Result:
  known = {field.name for field in dataclasses.fields(eval_tasks.EvalTask)}
  about = {'name': name, 'benchmark': name.partition('.')[0], **dict(written.get('about') or {})}
  if unknown := sorted({*about} - known):
    problems.append(f'task {name}: unknown keys {unknown} of "about" are not used')
  task = eval_tasks.EvalTask(**{k: v for k, v in about.items() if k in known and v is not None})
  metrics, wrong = {}, []
  for metric, value in dict(written['metrics']).items():
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
      metrics[metric] = float(value)
    else:
      wrong.append(f'{metric} = {value!r}')
  if wrong:
    problems.append(f'task {name}: not finite, so not shown: {", ".join(wrong)}')
  notes = written.get('notes') or ()
  count = written.get('num_examples')
  if not isinstance(count, int) or count < 0:
    raise ValueError(f'num_examples is {count!r}, expected a count')
  if count == 0:
    problems.append(f'task {name} has no examples')
  settings = written.get('settings')
  return eval_tasks.Result(
    *(task, count, metrics, [notes] if isinstance(notes, str) else [*notes]),
    settings if isinstance(settings, dict) else {},
  )


def _has_types(p: eval_tasks.Prediction) -> bool:
  """Whether what a line holds is of the types that a page counts on."""
  lists = (p.targets, p.options, p.option_scores)
  return (
    isinstance(p.index, int)
    and isinstance(p.inputs, str)
    and isinstance(p.prediction, str)
    and all(isinstance(values, (list, tuple)) for values in lists)
    and all(isinstance(option, str) for option in p.options)
    and all(isinstance(score, (int, float)) for score in p.option_scores)
    and isinstance(p.fields, dict)
  )


def predictions(
  evaluation: Evaluation, task: str, problems: list[str]
) -> Iterator[eval_tasks.Prediction]:
  """Predictions of a task by line, a later one of an index instead of an earlier one never given.

  Lines that are torn or are none of the task are left out, and one sentence in `problems` names
  them. Nothing is given where there is no file.
  """
  path = evaluation.folder / eval_tasks.PREDICTIONS / f'{task}.jsonl'
  if not path_facts.exists(path):
    return
  torn: list[str] = []
  twice: list[str] = []
  seen: set[int] = set()
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      try:
        prediction = eval_tasks.Prediction.from_dict(json.loads(line))
        fits = prediction.task == task and _has_types(prediction)
      except (ValueError, TypeError, RecursionError):
        fits = False
      if not fits:
        torn.append(str(number))
      elif prediction.index in seen:
        twice.append(str(number))
      else:
        seen.add(prediction.index)
        yield prediction
  for what, lines in (
    ('torn or no prediction of the task', torn),
    ('of an example that an earlier line answers', twice),
  ):
    if lines:
      more = f' and {len(lines) - _SHOWN} more' if lines[_SHOWN:] else ''
      problems.append(f'{path}: line {", ".join(lines[:_SHOWN])}{more}: {what}; left out')
