"""Evaluation by answers: SeqIO tasks whose metrics take generated answers or options' scores."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import seqio
import tensorflow as tf
from etils import epath

from aya_train import finiteness, hosts, lease, metric_writer, model_answers, partitioning, watchdog
from aya_train.data import task_examples, task_registry
from aya_train.evaluation import (
  eval_answers,
  eval_metrics,
  eval_reader,
  eval_rows,
  infer_eval,
  missing_tasks,
  task_outcomes,
)
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import eval_tasks, split_slices
from aya_train.tasks.mixtures import source_mixture

logger = logging.getLogger(__name__)
NO_METRICS = 'no metrics'
TRIED_EXAMPLES = 8  # on which metrics are tried before they are needed


class NothingToDecodeError(ValueError):
  """No task can be decoded and scored; the message says why."""


class KeepingError(OSError):
  """Answers cannot be kept: those of other tasks could not be either."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
  """On several hosts the others wait for the first one, which writes: it may not go on alone."""
  try:
    yield
  except (OSError, hosts.ElsewhereError) as error:
    if hosts.is_lost(error) or isinstance(error, lease.LostError):
      raise
    raise KeepingError(
      f'answers cannot be kept: {error}. The same command goes on after those that are there'
    ) from error


class InferEvaluator:
  """Answers the examples of SeqIO tasks with a model and computes their metrics.

  Each task has an evaluator of SeqIO's own, so that one whose metric fails takes no other with it.
  With `keeps_examples` they cache targets and inputs: one object should serve a whole run.

  Attributes:
    tasks: names of the tasks that are answered.
    left_out: why the others cannot be, by the name of each.
  """

  def __init__(
    self,
    model: objective.Objective,
    partitioner: partitioning.Partitioner,
    config: infer_eval.InferEvalConfig,
    log_dir: str | None = None,
    *,
    answerer: model_answers.Answerer | None = None,
    keeps_examples: bool = True,
  ):
    """Reads examples of all tasks; nothing is written before `evaluate`.

    Args:
      model: that answers, if nothing else does.
      partitioner: its mesh.
      config: what is answered.
      log_dir: gets SeqIO's files.
      answerer: what answers instead of the model.
      keeps_examples: whether examples stay in memory between two evaluations.

    Raises:
      NothingToDecodeError: no task has metrics, the split, and rows in it.
      missing_tasks.MissingTasksError: data of tasks are not there, and none may be missing.
    """
    self._config = config
    self._model_answers: model_answers.ModelAnswers | None = None
    if answerer is None:
      assert isinstance(model, seq2seq.EncoderDecoderModel)
      answerer = self._model_answers = model_answers.ModelAnswers(
        model, partitioner, config.batch_size, config.seed
      )
    self._answerer = answerer
    self._log_dir = log_dir if jax.process_index() == 0 else None
    self._keeps_examples = keeps_examples
    self._seen: set[tuple[str, ...]] = set()  # data of which examples were read
    self._absent: dict[tuple[str, ...], Exception] = {}  # data that are not there
    self.left_out: dict[str, str] = {}
    self._opened: dict[str, eval_reader.Opened | None] = {}
    missing, refused = self._find(config)
    if refused:
      every = {t.name for n in config.names for t in seqio.get_subtasks(_provider(n))}
      raise missing_tasks.refusal(missing_tasks.grouped(refused), len(every))
    self.left_out |= missing
    if not self._opened:
      raise NothingToDecodeError(
        f'nothing of {config.mixture_or_task_name!r} can be decoded and scored:\n'
        f'{self.describe_left_out()}'
      )

  def _find(self, config: infer_eval.InferEvalConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Opens what is there; says why other tasks are missing, and which may not be."""
    missing: dict[str, str] = {}
    refused: dict[str, str] = {}
    for named in config.names:
      provider = _provider(named)
      tasks = seqio.get_subtasks(provider)
      others: dict[str, str] = {}
      for task in tasks:
        if task.name in self._opened or task.name in missing:
          continue
        try:
          reason = self._add(task)
        except (OSError, tf.errors.OpError) as error:
          if not eval_reader.is_missing(error):
            raise
          self._absent[_data(task.name, self._config)] = error
          missing[task.name] = f'its data is missing ({task_examples.reason(error)})'
          continue
        if reason:
          others[task.name] = reason
      if all(self._lacks_split(task) for task in tasks):
        # A name of which nothing is there. What no metric asks for is not missed.
        missing |= {name: reason for name, reason in others.items() if reason != NO_METRICS}
        others = {name: reason for name, reason in others.items() if reason == NO_METRICS}
      self.left_out |= others
      if not _may_be_missing(provider, config):
        refused |= {task.name: missing[task.name] for task in tasks if task.name in missing}
    return missing, refused

  @property
  def tasks(self) -> list[str]:
    return list(self._opened)

  def keep(self, names: Sequence[str]) -> None:
    """Decodes these tasks only, in this order."""
    self._opened = {name: self._opened[name] for name in names}

  def describe_left_out(self) -> str:
    """What is not decoded and why, a line for each reason; '' if everything is."""
    return missing_tasks.described(missing_tasks.grouped(self.left_out))

  def _lacks_split(self, task: seqio.Task) -> bool:
    return not split_slices.has(task, self._config.split_of(task.name))

  def _add(self, task: seqio.Task) -> str:
    """Opens a task; returns why it cannot be decoded, '' if it can."""
    split = self._config.split_of(task.name)
    if not eval_metrics.of_task(task):
      return NO_METRICS
    if self._lacks_split(task):
      return f'no split {split!r}'
    needed = {metric.model_output_type for metric in task.metric_objs}
    if unknown := needed - {*eval_reader.OUTPUT_TYPES}:
      names = ', '.join(seqio.metrics.ModelOutputType.to_str(kind) for kind in unknown)
      return f'metrics of outputs that are not computed here ({names})'
    data = _data(task.name, self._config)
    if not self._keeps_examples and data in self._seen:  # with another prompt
      self._opened[task.name] = None
      return ''
    if data in self._absent:
      raise self._absent[data]
    evaluator = self._evaluator(
      task.name, self._config.num_examples if self._keeps_examples else 1, self._log_dir
    )
    if not int(evaluator.cached_task_datasets[task.name].cardinality()):
      return f'no rows in {split!r}'
    self._opened[task.name] = None
    self._seen.add(data)
    if self._keeps_examples:
      lengths = self._config.lengths_of(task.name)
      self._opened[task.name] = eval_reader.opened(task.name, evaluator, lengths)
    return ''

  def _evaluator(self, name: str, num_examples: int | None, log_dir: str | None) -> seqio.Evaluator:
    return eval_reader.evaluator(
      name,
      split=self._config.split_of(name),
      lengths=self._config.lengths_of(name),
      num_examples=num_examples,
      use_cached=self._config.use_cached,
      seed=self._config.seed,
      log_dir=log_dir,
    )

  def try_metrics(self, num_examples: int = TRIED_EXAMPLES) -> dict[str, str]:
    """Scores the first targets as if the model had predicted them; no model runs.

    Tasks that share metrics and postprocessing are tried once.

    Returns:
      Task name -> what its metrics or postprocessing raised.
    """
    problems, seen = {}, set()
    for name in self._opened:
      identity = eval_reader.metrics_identity(seqio.TaskRegistry.get(name))
      if identity in seen:
        continue
      seen.add(identity)
      try:
        problem = eval_reader.tried(self._evaluator(name, num_examples, None), name)
      except Exception as error:
        problem = eval_metrics.first_line(error)
      if problem:
        problems[name] = problem
    return problems

  def evaluate(
    self,
    params: Any,
    step: int,
    *,
    tasks: Sequence[str] | None = None,
    failures: dict[str, Exception] | None = None,
    between: Callable[[], None] = lambda: None,
    store: task_outcomes.Store | None = None,
  ) -> dict[str, dict[str, float]]:
    """Decodes and scores tasks, one after the other.

    Args:
      params: parameters.
      step: for the names of the files of decoded examples.
      tasks: which, None for all.
      failures: gets what a task's metrics raised, by task, or which of them are NaN or infinite;
        without it the first is raised at the end.
      between: called before each batch, by every host; a `lease.LostError`, or what is no
        Exception, ends all of it.
      store: keeps answers while they come, and knows those of earlier processes.

    Returns:
      Metrics that are single numbers, by task name; on the first host only, {} on others.
    """
    failed: dict[str, Exception] = {}
    results = {}
    for name in self.tasks if tasks is None else tasks:
      outcome = self.evaluate_task(
        name, params, step, failures=failed, between=between, store=store
      )
      if outcome is not None:
        results[name] = dict(outcome.metrics)
    if failures is not None:
      failures.update(failed)
    elif failed:
      raise next(iter(failed.values()))
    return results

  def evaluate_task(
    self,
    name: str,
    params: Any,
    step: int,
    *,
    failures: dict[str, Exception],
    between: Callable[[], None] = lambda: None,
    store: task_outcomes.Store | None = None,
  ) -> task_outcomes.Outcome | None:
    """Decodes and scores one task; arguments as `evaluate`.

    Returns:
      What it gave, on the first host; None on others, and where nothing could be computed.
    """
    outcome: task_outcomes.Outcome | None = None
    try:
      outcome = self._evaluate(name, params, step, between, store)
      if outcome is not None and not outcome.is_kept:
        finiteness.check_figures(dict(outcome.metrics), 'metrics', 'Does the metric divide by 0?')
    except SystemExit as error:
      failures[name] = RuntimeError(f'a metric called sys.exit({error.code!r})')
    except Exception as error:
      if hosts.is_lost(error) or isinstance(error, lease.LostError | KeepingError):
        raise
      failures[name] = error
    return outcome

  def _evaluate(
    self,
    name: str,
    params: Any,
    step: int,
    between: Callable[[], None],
    store: task_outcomes.Store | None,
  ) -> task_outcomes.Outcome | None:
    if self._log_dir:
      epath.Path(self._log_dir).mkdir(parents=True, exist_ok=True)
    if self._model_answers is not None:
      self._model_answers.params = params
    lengths = self._config.lengths_of(name)
    with hosts.together():
      opened = self._open(name)
    task, rows = opened.task, opened.rows
    title = f'{name} ({self.tasks.index(name) + 1} of {len(self.tasks)} tasks)'
    answers: dict[str, Any] = {}
    notes: dict[str, None] = dict.fromkeys(rows.notes)
    was_complete = store is not None
    with contextlib.ExitStack() as stack:
      for kind in eval_reader.kinds(task):
        count = len(rows.questions if kind == eval_reader.SCORED else rows.rows)
        if not count:
          raise ValueError(f'no rows in {self._config.split_of(name)!r}')
        kept: Any = eval_answers.InMemory()
        if store is not None:
          kept = stack.enter_context(store.open(kind, self._about(name, rows, kind), count))
        was_complete = was_complete and len(kept.done) == count
        answers[kind] = kept
      if was_complete and store is not None and (known := store.known(name)) is not None:
        return dataclasses.replace(known, is_kept=True) if hosts.is_first() else None
      for kind, kept in answers.items():
        answer = eval_answers.score if kind == eval_reader.SCORED else eval_answers.generate
        with watchdog.phase('decoding'), _writing():
          answer(task, rows, self._answerer, lengths, kept, between, title)
          if store is not None:
            kept.finish()
      if not hosts.is_first():
        return None
      for kept in answers.values():
        notes |= dict.fromkeys(
          eval_answers.notes_of(
            kept.records(), lengths, is_ranked=rows.is_ranked, eos_id=_eos_id(task)
          )
        )
      with watchdog.phase(f'metrics of {name}'):
        values = opened.metrics(answers, lengths['targets'], step)
    figures = eval_metrics.numbers(values)
    if others := sorted({*values} - {*figures}):
      logger.info('%s: %s: no single numbers, not in %s', name, others, metric_writer.FILE)
    is_ranked = rows.is_ranked and eval_reader.SCORED in answers
    return task_outcomes.Outcome(
      figures, len(rows.questions if is_ranked else rows.rows), tuple(notes), is_ranked
    )

  def _open(self, name: str) -> eval_reader.Opened:
    if (opened := self._opened[name]) is not None:
      return opened
    evaluator = self._evaluator(name, self._config.num_examples, self._log_dir)
    return eval_reader.opened(name, evaluator, self._config.lengths_of(name))

  def _about(self, name: str, rows: eval_rows.Rows, kind: str) -> dict[str, Any]:
    """What answers depend on besides the model."""
    return {
      'task': name,
      'version': eval_tasks.about(name).version,
      'split': self._config.split_of(name),
      'lengths': self._config.lengths_of(name),
      'num_examples': self._config.num_examples,
      'examples': rows.digest(),
      **({'seed': self._config.seed} if kind == eval_reader.GENERATED else {}),
    }


def _provider(name: str) -> seqio.Task | seqio.Mixture:
  return task_registry.get_mixture_or_task(name)


def _eos_id(task: seqio.Task) -> int:
  return int(task.output_features['targets'].vocabulary.eos_id)


def _data(task: str, config: infer_eval.InferEvalConfig) -> tuple[str, ...]:
  """The same for tasks that read the same examples."""
  about = eval_tasks.about(task)
  return (about.benchmark, about.language, about.subset, config.split_of(task))


def _may_be_missing(
  provider: seqio.Task | seqio.Mixture, config: infer_eval.InferEvalConfig
) -> bool:
  if config.missing_tasks == missing_tasks.LEAVE_OUT:
    return True
  is_mixture = isinstance(provider, source_mixture.SourceMixture)
  return is_mixture and source_mixture.settings().missing_sources == source_mixture.RENORMALISE
