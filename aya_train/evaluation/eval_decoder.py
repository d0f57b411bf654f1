"""The evaluator of an evaluation by answers: the same tasks on every host, and what fails, said."""

import logging

from aya_train import decode_settings, hosts, model_answers, partitioning
from aya_train.data import feature_converters
from aya_train.evaluation import infer_eval, infer_evaluator
from aya_train.objectives import objective, seq2seq

logger = logging.getLogger(__name__)


def check(model: objective.Objective, config: infer_eval.InferEvalConfig | None) -> None:
  """Refuses options of decoding that are out of range, which else the first answers would find.

  Raises:
    ValueError: with the option and its value.
  """
  if config is None or not isinstance(model, seq2seq.EncoderDecoderModel):
    return
  feature_converters.check_lengths(config.task_feature_lengths, ('inputs', 'targets'))
  lengths = [config.task_feature_lengths]
  lengths += [{**lengths[0], **others} for others in config.lengths_of_tasks.values()]
  for limit in {model.max_new_tokens or each['targets'] for each in lengths}:
    decode_settings.of(model.decode_fn, limit)


def opened(
  model: objective.Objective,
  partitioner: partitioning.Partitioner,
  config: infer_eval.InferEvalConfig | None,
  log_dir: str | None,
  *,
  required: bool,
  answerer: model_answers.Answerer | None = None,
  keeps_examples: bool = True,
) -> infer_evaluator.InferEvaluator | None:
  """The evaluator of what can be decoded; what cannot, and metrics that will fail, are said.

  Args:
    model, partitioner, config, log_dir: see `infer_evaluator.InferEvaluator`.
    required: refuse a configuration of which nothing can be decoded.
    answerer, keeps_examples: see `infer_evaluator.InferEvaluator`.

  Returns:
    None if nothing is to be, or can be, decoded.

  Raises:
    infer_evaluator.NothingToDecodeError: that, and it is required.
    missing_tasks.MissingTasksError: data of tasks are not there, and none may be missing.
  """
  if config is None:
    return None
  evaluator = None
  with hosts.together():
    if answerer is None:
      check(model, config)
    try:
      if not isinstance(model, seq2seq.EncoderDecoderModel):
        raise infer_evaluator.NothingToDecodeError(
          f'{type(model).__name__} decodes nothing, and {config.mixture_or_task_name!r} is to be '
          'decoded: INFER_EVAL_CFG = None'
        )
      evaluator = infer_evaluator.InferEvaluator(
        *(model, partitioner, config, log_dir), answerer=answerer, keeps_examples=keeps_examples
      )
    except infer_evaluator.NothingToDecodeError as error:
      if required:
        raise
      logger.warning('no answers are decoded: %s', error)
  # Hosts may see other data; they must decode the same tasks, one after the other.
  names = hosts.first_says([] if evaluator is None else evaluator.tasks)
  with hosts.together():
    if missing := sorted({*names} - {*(evaluator.tasks if evaluator else ())}):
      raise ValueError(f'{missing} can be decoded on the first host, and not on this one')
  if evaluator is None or not names:
    return None
  evaluator.keep(names)
  if evaluator.left_out:
    logger.warning('not decoded:\n%s', evaluator.describe_left_out())
  for task, problem in evaluator.try_metrics().items():
    logger.warning(
      'the metrics of %s fail on its own first targets (%s): they will fail after decoding too, '
      'and then be left out',
      task,
      problem,
    )
  return evaluator
