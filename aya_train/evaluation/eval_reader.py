"""SeqIO tasks opened for evaluation: their examples, and SeqIO's evaluator of their metrics."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from aya_train.data import task_registry
from aya_train.evaluation import eval_answers, eval_metrics, eval_rows
from aya_train.tasks import eval_tasks

GENERATED, SCORED = 'generated', 'scored'  # kinds of answers
_TYPES = seqio.metrics.ModelOutputType
OUTPUT_TYPES = (_TYPES.PREDICTION, _TYPES.PREDICTION_WITH_AUX, _TYPES.SCORE)


@dataclasses.dataclass(frozen=True)
class Opened:
  """A task, its examples, and what computes its metrics.

  Attributes:
    task: the task.
    evaluator: of this task alone.
    rows: the examples.
  """

  task: seqio.Task
  evaluator: seqio.Evaluator
  rows: eval_rows.Rows

  def metrics(
    self, answers: Mapping[str, eval_answers.Records], length: int, step: int
  ) -> Mapping[str, Any]:
    """What SeqIO computes of all answers, by their kind."""

    @functools.cache
    def generated() -> tuple[list[tuple[int, list[int]]], list[float]]:
      return eval_answers.generated_outputs(answers[GENERATED].records(), length)

    scored, _ = self.evaluator.evaluate(
      compute_metrics=True,
      step=step,
      predict_fn=lambda *_: generated()[0],
      # As T5X's predict_batch_with_aux: tokens, and each answer's log-likelihood as `scores`.
      predict_with_aux_fn=lambda *_: (generated()[0], _aux(generated()[1])),
      score_fn=lambda *_: eval_answers.scored_outputs(answers[SCORED].records(), self.rows),
    )
    return scored.result()[self.task.name]


def evaluator(
  name: str,
  *,
  split: str,
  lengths: Mapping[str, int],
  num_examples: int | None,
  use_cached: bool,
  seed: int,
  log_dir: str | None = None,
) -> seqio.Evaluator:
  """SeqIO's evaluator of one task; inputs that lose their beginning come uncut.

  Args:
    name: of the task.
    split: which it has, or is made of slices of those that it has.
    lengths: of inputs and targets.
    num_examples: read at most, of ranked options the questions; None for all.
    use_cached, seed: of SeqIO's reading.
    log_dir: gets SeqIO's files.
  """
  with task_registry.registered_with(seqio.TaskRegistry.get(name), split):
    task = seqio.TaskRegistry.get(name)
    kept = {side: n for side, n in lengths.items() if side != 'inputs' or not cuts_left(task)}
    if num_examples is not None and eval_rows.is_scored(task):
      num_examples = eval_rows.questions_of(
        task.get_dataset(
          *(kept, split), use_cached=use_cached, shuffle=False, seed=seed, num_epochs=1
        ).as_numpy_iterator(),
        num_examples,
      )
    return seqio.Evaluator(
      mixture_or_task_name=name,
      feature_converter=seqio.EncDecFeatureConverter(pack=False),
      eval_split=split,
      use_cached=use_cached,
      seed=seed,
      sequence_length=kept,
      num_examples=num_examples,
      logger_cls=[eval_metrics.StrictJSONLogger] if log_dir else [],
      log_dir=log_dir,
      async_compute_metrics=False,
    )


def opened(name: str, found: seqio.Evaluator, lengths: Mapping[str, int]) -> Opened:
  """The rows of what an evaluator has read."""
  task = seqio.TaskRegistry.get(name)
  examples = found.cached_task_datasets[name].as_numpy_iterator()
  return Opened(task, found, eval_rows.read(task, examples, lengths, cut_left=cuts_left(task)))


def kinds(task: seqio.Task) -> list[str]:
  """Which answers a task's metrics take."""
  others = {metric.model_output_type for metric in task.metric_objs} - {_TYPES.SCORE}
  wanted = ((GENERATED, bool(others)), (SCORED, eval_rows.is_scored(task)))
  return [kind for kind, is_wanted in wanted if is_wanted]


def cuts_left(task: seqio.Task) -> bool:
  """Whether inputs that are too long lose their beginning."""
  return eval_rows.is_scored(task) or eval_tasks.about(task.name).num_shots > 0


def is_missing(error: BaseException) -> bool:
  """Whether data is not there; what a source raises inside tf.data comes as a text."""
  if isinstance(error, OSError | tf.errors.NotFoundError):
    return True
  return any(f'{name}: ' in str(error) for name in ('FileNotFoundError', 'OSError'))


def tried(found: seqio.Evaluator, name: str) -> str:
  """What metrics raise of the targets, as if a model had predicted them; '' if nothing."""
  try:
    scored = found.evaluate(
      compute_metrics=True,
      predict_fn=lambda ds, *_: _targets(ds),
      predict_with_aux_fn=lambda ds, *_: (pairs := _targets(ds), _aux([0.0] * len(pairs))),
      score_fn=lambda ds, *_: [(i, 0.0) for i, _ in _targets(ds)],
    )
    eval_metrics.numbers(scored[0].result()[name])
  except (Exception, SystemExit) as error:
    return eval_metrics.first_line(error)
  return ''


def metrics_identity(task: seqio.Task) -> tuple[Any, ...]:
  """The same for tasks whose metrics and postprocessing are the same."""
  return (*map(_identity, task.metric_fns or task.metric_objs), _identity(task.postprocess_fn))


def _identity(function: Any) -> Any:
  """What tells functions apart; metrics of our own that differ in an option do the same."""
  if parts := getattr(function, 'metrics', ()):  # `references.together`
    return tuple(map(_identity, parts))
  whole = getattr(function, 'func', getattr(function, '__wrapped__', function))
  module = getattr(whole, '__module__', '')
  return (module, whole.__qualname__) if '.tasks.metrics.' in f'.{module}' else id(function)


def _aux(scores: list[float]) -> dict[str, list[float]]:
  return {'scores': scores}


def _targets(ds: Any) -> list[tuple[int, list[int]]]:
  return [(int(i), ex['decoder_target_tokens'].tolist()) for i, ex in ds.as_numpy_iterator()]
