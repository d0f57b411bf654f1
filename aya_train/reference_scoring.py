"""`aya-train score`: what a reference model says of prepared pairs of answers, once."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aya_train import (
  answer_batches,
  batch_progress,
  destinations,
  finiteness,
  hosts,
  lease,
  partitioning,
  preference_losses,
  preflight,
  stopping,
  watchdog,
)
from aya_train.checkpoint import checkpoint_identity, formats, reading
from aya_train.data import (
  batching,
  feature_converters,
  pair_features,
  prepared,
  reference_scores,
  truncation,
)
from aya_train.objectives import objective, preference

logger = logging.getLogger(__name__)
Example = Mapping[str, np.ndarray]
_BATCHES = 64  # of which the scores are written together
_SIZES = 4  # lengths that rows are cut to: so many networks are compiled at most, for each feature


def score(
  *,
  model: preference.PreferenceModel,
  checkpoint_path: str | None,
  partitioner: partitioning.Partitioner,
  train_dataset_cfg: batching.DatasetConfig,
  train_eval_dataset_cfg: batching.DatasetConfig | None = None,
  batch_size: int | None = None,
) -> int:
  """Scores the pairs of training and validation, unless that has been done already.

  The examples are those that training reads, cut to the same lengths. A process that was stopped is
  gone on with. On several hosts each computes its rows of every batch, and the first one writes.

  Args:
    model: the objective that will train on the scores; it says what is scored.
    checkpoint_path: the reference, of any format of checkpoint/formats.py.
    partitioner: mesh.
    train_dataset_cfg, train_eval_dataset_cfg: data; what has no validation split has no scores.
    batch_size: pairs at a time; None for that of training.

  Returns:
    Pairs that were scored now.

  Raises:
    ValueError: a loss without a reference; weights of another network or vocabulary; data that
      cannot be trained on; a batch that the devices cannot share.
    FileNotFoundError: no checkpoint, or no data.
    finiteness.NonFiniteError: the weights, or a score, are not finite.
    stopping.StoppedError: a signal came; what was scored is kept.
  """
  if model.uses_reference and not model.reads_scores:
    raise ValueError(f'PREFERENCE_REFERENCE = {model.reference!r} needs no scores: train at once')
  if not model.uses_reference:
    raise ValueError(
      f'PREFERENCE_LOSS = {model.loss!r} needs no reference: train at once. Those that do are '
      f'{preference_losses.WITH_REFERENCE}'
    )
  if checkpoint_path is None:
    raise ValueError(
      'no reference to score with: REFERENCE_CHECKPOINT_PATH, or INITIAL_CHECKPOINT_PATH, names it'
    )
  size = train_dataset_cfg.batch_size if batch_size is None else batch_size
  name = 'BATCH_SIZE' if batch_size is None else 'SCORE_BATCH_SIZE'
  partitioner.check_batch_size(size, name=name)
  model.check(partitioner.mesh.devices.flat[0].platform)
  source = formats.detect(checkpoint_path)
  step = reading.check(source, objective.parameter_axes(model)[0], model)
  identity = ''
  with hosts.together():
    if hosts.is_first():
      identity = checkpoint_identity.of(source.path)
  found = preflight.check_data(train_dataset_cfg, train_eval_dataset_cfg)
  host = hosts.here(partitioner.data_shard)
  work = _Work(
    model,
    partitioner,
    size,
    {
      'path': os.fspath(checkpoint_path),
      'folder': os.fspath(source.path),
      'identity': hosts.first_says(identity),
      'step': step,
      'format': source.format.value,
    },
  )
  todo: list[tuple[str, prepared.PreparedTask, Mapping[str, int]]] = []
  for cfg in (found.train, found.train_eval):
    if cfg is None:
      continue
    for name, task in batching.prepared_tasks(
      cfg, host, allow_empty=cfg is not found.train
    ).items():
      if reference_scores.FEATURE in task.manifest.features:
        logger.info('%s:%s has scores of its own', name, cfg.split)
      elif work.is_done(task, cfg.task_feature_lengths):
        logger.info('%s:%s is scored already', name, cfg.split)
      else:
        model.feature_converter.check_examples(f'{name}:{cfg.split}', task.manifest.lengths)
        todo.append((f'{name}:{cfg.split}', task, cfg.task_feature_lengths))
  if not todo:
    return 0
  root = batching.prepared_root(train_dataset_cfg.prepared_dir)
  with stopping.stop_on_signal() as stop, lease.held(root / 'scoring', 'PREPARED_DIR', 'score'):
    params = reading.read_for(model, partitioner, source)
    started = time.monotonic()
    with watchdog.phase('scoring'):
      count = sum(work.score(name, task, lengths, params, stop) for name, task, lengths in todo)
  rate = count / max(time.monotonic() - started, 1e-9)
  if hosts.is_first():
    logger.info('scored %s pairs (%.1f a second)', f'{count:,}', rate)
  return count


class _Work:
  """Scores tasks with one reference; the network is compiled once for each size of rows."""

  def __init__(
    self,
    model: preference.PreferenceModel,
    partitioner: partitioning.Partitioner,
    batch_size: int,
    checkpoint: Mapping[str, Any],
  ):
    self._model, self._partitioner = model, partitioner
    self._batch_size, self._checkpoint = batch_size, checkpoint
    self._unrelated = model.compares_with_others
    more = (reference_scores.UNRELATED,) if self._unrelated else ()
    self._names = (*reference_scores.TEXT, *more)
    self._converter = pair_features.AnswerPairFeatureConverter(self._names)
    self._step = partitioner.jit(model.score_pairs, out_shardings=partitioner.replicated)

  def _folder(self, task: prepared.PreparedTask, lengths: Mapping[str, int]) -> Any:
    identity = self._checkpoint['identity']
    return reference_scores.folder(task, identity, lengths, unrelated=self._unrelated)

  def is_done(self, task: prepared.PreparedTask, lengths: Mapping[str, int]) -> bool:
    """Whether all scores of a task are there, on the first host."""
    done = (self._folder(task, lengths) / reference_scores.MANIFEST).exists()
    return hosts.first_says(done)

  def score(
    self,
    name: str,
    task: prepared.PreparedTask,
    lengths: Mapping[str, int],
    params: Any,
    stop: stopping.Stop,
  ) -> int:
    """Scores the rest of a task; the number of pairs that were scored now."""
    lengths = {feature: lengths[feature] for feature in self._names}
    writer = None
    with hosts.together():
      if hosts.is_first():
        where = self._folder(task, lengths)
        destinations.check_folder(where, 'the folder of scores (PREPARED_DIR)')
        writer = reference_scores.ScoresWriter(where, len(task))
    begin = hosts.first_says(0 if writer is None else writer.done)
    progress = batch_progress.BatchProgress(f'{name}: pairs scored', len(task), begin)
    window = self._batch_size * _BATCHES
    equal = 0
    for first in range(begin, len(task), window):
      examples = list(self._examples(task, lengths, range(first, min(first + window, len(task)))))
      equal += sum(np.array_equal(e['chosen'], e['rejected']) for e in examples)
      scores = np.zeros((len(examples), len(pair_features.SCORES)), np.float32)
      sizes = [range(sum(len(e[n]) for n in self._names)) for e in examples]
      for places in answer_batches.plan(sizes, range(len(examples)), self._batch_size):
        scores[places] = self._scores([examples[i] for i in places], lengths, params)
        progress.add(len(places))
        watchdog.beat()
        stop.check()
      with hosts.together():
        finiteness.check_figures(
          {'lowest score': float(scores.min()), 'mean score': float(scores.mean())},
          f'of pairs {first} to {first + len(examples)} of {name}',
          "Activations overflow: ACTIVATION_DTYPE = 'float32'",
        )
        if writer is not None:
          writer.write(scores)
    if equal and hosts.is_first():
      logger.warning(
        '%s: chosen and rejected are the same tokens in %d of %d pairs, as the lengths cut them: '
        'nothing is learned from those. Longer TASK_FEATURE_LENGTHS tell them apart',
        *(name, equal, len(task) - begin),
      )
    with hosts.together():
      if writer is not None:
        writer.finish(
          {
            'checkpoint': dict(self._checkpoint),
            'lengths': {feature: lengths[feature] for feature in reference_scores.TEXT},
            'unrelated': self._unrelated,
            'vocabulary': task.manifest.vocabulary,
            'activation_dtype': str(np.dtype(self._model.activation_dtype)),
          }
        )
    return len(task) - begin

  def _examples(
    self, task: prepared.PreparedTask, lengths: Mapping[str, int], indices: range
  ) -> Iterator[Example]:
    """Examples as training has them: cut, and with an answer to another prompt if need be."""
    trim = truncation.trimmer(reference_scores.eos_after_trim(task.manifest), lengths)
    for index in indices:
      yield trim(reference_scores.with_unrelated(task, index) if self._unrelated else task[index])

  def _scores(
    self, examples: Sequence[Example], lengths: Mapping[str, int], params: Any
  ) -> np.ndarray:
    """Of some examples, float32 [N, len(SCORES)]."""
    fitting = {
      name: _fitting(max(len(e[name]) for e in examples), length)
      for name, length in lengths.items()
    }
    padded = feature_converters.padded(examples, fitting, self._batch_size)
    batch = self._converter.convert(padded, packed=False)
    part, parts = hosts.here(self._partitioner.data_shard).part
    rows = self._batch_size // parts
    local = {name: x[part * rows : (part + 1) * rows] for name, x in batch.items()}
    found = self._step(params, self._partitioner.to_global(local))
    return np.asarray(jax.device_get(found))[: len(examples), :, 0]


def _fitting(longest: int, limit: int) -> int:
  """The smallest of a few lengths that holds what is longest."""
  sizes = [-(-limit * part // _SIZES) for part in range(1, _SIZES + 1)]
  return next(size for size in sizes if size >= longest)
