"""What an evaluation leaves in its folder: predictions of each task, and results.json.

EVAL_OUTPUT_DIR/predictions/TASK.jsonl    a `eval_tasks.Prediction` a line, as they come
               /scores/TASK.jsonl         log-likelihoods of a task that is generated and scored
               /results.json              figures of the tasks that are done
               /earlier/step_N/           the same of a checkpoint that was evaluated before
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from aya_train import answer_file, hosts
from aya_train.evaluation import eval_reader, task_outcomes
from aya_train.tasks import eval_tasks, storage
from aya_train.tasks.eval import published_rows

logger = logging.getLogger(__name__)
SCORES = 'scores'  # a folder
EARLIER = 'earlier'  # a folder


@dataclasses.dataclass(frozen=True)
class Evaluated:
  """What is evaluated.

  Attributes:
    checkpoint: its path.
    fingerprint: of its files.
    step: that it was saved at, 0 if unknown.
    model: the network and what it computes in, JSON.
    settings: how it answers, JSON.
  """

  checkpoint: str
  fingerprint: str
  step: int
  model: Mapping[str, Any]
  settings: Mapping[str, Any]


class Results:
  """results.json and the predictions of one checkpoint; see `task_outcomes.Store`.

  Every host makes one and calls the same; the first one alone reads and writes.
  """

  def __init__(self, folder: epath.PathLike, evaluated: Evaluated):
    """Goes on with what the folder holds of the same checkpoint; of another it is set aside."""
    self._folder, self._evaluated = epath.Path(folder), evaluated
    self._content: dict[str, Any] = {}
    self._settings: dict[str, dict[str, Any]] = {}  # of each task whose answers were opened
    with hosts.together():
      if hosts.is_first():
        self._content = self._found()
    self._known = {*hosts.first_says(sorted(self._content.get('tasks', {})))}

  def open(self, kind: str, about: Mapping[str, Any], num_questions: int) -> Any:
    """The file of a task's answers, begun anew if what is there answers something else."""
    task = about['task']
    # A task with both kinds of answers has them in two files.
    folder = SCORES if task in self._settings else eval_tasks.PREDICTIONS
    settings = {k: v for k, v in self._evaluated.settings.items() if k in _OF_ANSWERS[kind]}
    said = {k: v for k, v in about.items() if k in _SAID}
    self._settings[task] = {**self._settings.get(task, {}), **said, **settings}
    with hosts.together():
      if hosts.is_first():
        (self._folder / folder).mkdir(parents=True, exist_ok=True)
    file = answer_file.AnswerFile(
      self._folder / folder / f'{task}.jsonl',
      {**about, 'checkpoint': self._evaluated.fingerprint, **settings, 'kind': kind},
      num_questions=num_questions,
      name='EVAL_OUTPUT_DIR',
      overwrite=True,
    )
    if not file.complete:
      self._known.discard(task)
      if self._content.get('tasks', {}).pop(task, None) is not None:
        self._write()
    return file

  def known(self, task: str) -> task_outcomes.Outcome | None:
    """Figures of a task whose answers are complete; empty on other hosts than the first."""
    if task not in self._known:
      return None
    if not hosts.is_first():
      return task_outcomes.Outcome({}, 0, ())
    result = self._content['tasks'][task]
    return task_outcomes.Outcome(result['metrics'], result['num_examples'], tuple(result['notes']))

  def add(self, result: eval_tasks.Result) -> None:
    """Adds figures of a task, and the settings that its answers depend on, in its file at once.

    The file's own `settings` are those of the newest command; other tasks may be of earlier ones.
    """
    task = result.about.name
    found = dataclasses.replace(result, settings=self._settings.get(task, {}))
    self._content['tasks'][task] = found.to_dict()
    self._write()

  def leave_out(self, reasons: Mapping[str, str]) -> None:
    """Says which tasks were not evaluated, and why each was not."""
    if hosts.is_first():
      self._content['left_out'] = dict(reasons)
      if self._content['left_out'] or self._content['tasks']:
        self._write()

  def _found(self) -> dict[str, Any]:
    path = self._folder / eval_tasks.RESULTS
    now = self._evaluated
    fresh = {
      'checkpoint': now.checkpoint,
      'fingerprint': now.fingerprint,
      'step': now.step,
      'model': dict(now.model),
      'settings': dict(now.settings),
      'tasks': {},
    }
    if not path.exists():
      return fresh
    try:
      before = json.loads(path.read_text())
      old, step, tasks = before['fingerprint'], before['step'], dict(before['tasks'])
    except (ValueError, KeyError, TypeError, RecursionError):
      logger.warning('%s is damaged, and made anew from the predictions', path)
      return fresh
    if old == now.fingerprint:
      return {**fresh, 'tasks': tasks}
    kept = self._set_aside(f'step_{step}')
    logger.warning(
      '%s holds the evaluation of another checkpoint (%s, step %s): it is kept in %s',
      *(self._folder, before.get('checkpoint'), step, kept),
    )
    return fresh

  def _set_aside(self, name: str) -> epath.Path:
    parent = self._folder / EARLIER
    parent.mkdir(parents=True, exist_ok=True)
    target, number = parent / name, 2
    while target.exists():
      target, number = parent / f'{name}-{number}', number + 1
    target.mkdir()
    for part in (eval_tasks.PREDICTIONS, SCORES, eval_tasks.RESULTS):
      if (self._folder / part).exists():
        (self._folder / part).rename(target / part)
    return target

  def _write(self) -> None:
    if hosts.is_first():
      text = json.dumps(self._content, ensure_ascii=False, indent=2, allow_nan=False) + '\n'
      storage.write_atomically(
        self._folder / eval_tasks.RESULTS, text.encode('utf-8', 'backslashreplace')
      )


_SAID = ('lengths', 'num_examples', 'seed')
_OF_ANSWERS = {
  eval_reader.GENERATED: ('decoding', 'activation_dtype', 'format'),
  eval_reader.SCORED: ('activation_dtype', 'format'),
}


def result(outcome: task_outcomes.Outcome, about: eval_tasks.EvalTask) -> eval_tasks.Result:
  """An outcome as it is written; metrics that are NaN or infinite are left out, and named."""
  finite = {name: v for name, v in outcome.metrics.items() if abs(v) < float('inf')}
  notes = [*outcome.notes, *published_rows.notes(about, outcome.num_examples)]
  if bad := sorted({*outcome.metrics} - {*finite}):
    notes.append(f'{bad} are NaN or infinite, and left out')
  if about.metric and about.metric not in outcome.metrics:
    notes.append(
      f'{about.metric}, the figure that is published for it, is not defined for these answers'
    )
  return eval_tasks.Result(about, outcome.num_examples, finite, notes)
