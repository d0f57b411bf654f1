"""Tokens of a task in SentencePiece's batch API, where its last preprocessors are known ones.

SeqIO tokenises row by row inside tf.data, with the SentencePiece of tensorflow_text. Where nothing
but known steps follows `tokenize`, the rows are taken from tf.data as text, in batches, and threads
tokenise batch after batch without Python's lock: the same tokens in a third of the time.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from aya_train.data import piece_encoder
from aya_train.tasks import features, source_tasks
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.preference import preference_features

# name -> the texts of a batch, and its tokens: an int32 array a row. What a step returns goes on;
# the rows that it drops are None.
Texts = Mapping[str, Sequence[bytes]]
Columns = dict[str, list[np.ndarray]]
Keep = list[bool]

ROWS = 256  # of a batch
_MOST_THREADS = 4
_BATCHES_AHEAD = 8


class BatchTokenizer:
  """The end of a task's preprocessing, from texts on.

  Attributes:
    before: the task with the preprocessors that come before the tokenisation.
    names: features that are tokenised.
  """

  def __init__(self, task: seqio.Task, names: Sequence[str], at: int):
    preprocessors = list(task.preprocessors)
    self.names = tuple(names)
    self._dropped = preprocessors[at - 1] if at and _is_selection(preprocessors[at - 1]) else None
    self.before = seqio.Task(
      task.name,
      source=task.source,
      output_features=task.output_features,
      preprocessors=preprocessors[: at - 1 if self._dropped else at],
    )
    later = [p for p in preprocessors[at + 1 :] if not isinstance(p, seqio.CacheDatasetPlaceholder)]
    self._filters = [f for p in later if (f := _filter(p)) is not None]
    self._eos = {
      name: task.output_features[name].add_eos and (_appends(preprocessors[at]) or _any_eos(later))
      for name in self.names
    }
    self._vocabularies = {name: task.output_features[name].vocabulary for name in self.names}

  def batches(
    self, dataset: tf.data.Dataset, others: Sequence[str]
  ) -> Iterator[tuple[Columns, dict[str, list[bytes]]]]:
    """Yields the tokens of some rows, and other columns of the same rows as text.

    Args:
      dataset: of `before`; its rows have scalar strings under the names of both.
      others: names of the other columns.
    """
    wanted = {*self.names, *others}
    if any(spec.shape.rank != 0 for spec in dataset.element_spec.values()):
      dataset = dataset.map(lambda row: {name: row[name] for name in wanted})
    encoders = {name: _encoder(vocabulary) for name, vocabulary in self._vocabularies.items()}

    def tokenised(batch: Mapping[str, Any]) -> tuple[Columns, dict[str, list[bytes]]]:
      texts = {name: batch[name].numpy().tolist() for name in self.names}
      columns = {
        name: encoders[name].encode(column, add_eos=self._eos[name])
        for name, column in texts.items()
      }
      rest = {name: batch[name].numpy().tolist() for name in others}
      for change in self._filters:
        keep = change(columns, texts, self._eos)
        if not all(keep):
          columns = {k: list(itertools.compress(v, keep)) for k, v in columns.items()}
          texts = {k: list(itertools.compress(v, keep)) for k, v in texts.items()}
          rest = {k: list(itertools.compress(v, keep)) for k, v in rest.items()}
      return columns, rest

    return _in_threads(tokenised, dataset.batch(ROWS).prefetch(2))


def of_task(task: seqio.Task, record_features: Sequence[str]) -> BatchTokenizer | None:
  """How to tokenise a task in batches, None if its preprocessors are not all known from there on.

  Args:
    task: with any preprocessors.
    record_features: of its records, see `task_registry.record_features`.
  """
  preprocessors = list(task.preprocessors)
  places = [i for i, p in enumerate(preprocessors) if _is_tokenization(p)]
  if len(places) != 1 or not all(map(_is_known, preprocessors[places[0] + 1 :])):
    return None
  if not all(
    piece_encoder.is_plain(task.output_features[name].vocabulary) for name in record_features
  ):
    return None
  return BatchTokenizer(task, record_features, places[0])


def _encoder(vocabulary: seqio.SentencePieceVocabulary) -> piece_encoder.PieceEncoder:
  """The encoder of a vocabulary; the last one is kept, for thousands of small tasks have it."""
  content = vocabulary.sp_model
  if content not in _ENCODERS:
    _ENCODERS.clear()
    _ENCODERS[content] = piece_encoder.PieceEncoder(vocabulary)
  return _ENCODERS[content]


_ENCODERS: dict[bytes, piece_encoder.PieceEncoder] = {}


def _in_threads(function: Callable[[Any], Any], batches: Any) -> Iterator[Any]:
  """The function's results in the order of the batches, a few of which are worked on ahead."""
  threads = min(_MOST_THREADS, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(threads, 'tokenise') as pool:
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    try:
      for batch in batches:
        waiting.append(pool.submit(function, batch))
        if len(waiting) >= _BATCHES_AHEAD:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


def has_texts(dataset: tf.data.Dataset, names: Sequence[str]) -> bool:
  """Whether the rows have scalar strings under all names."""
  specs = dataset.element_spec
  return isinstance(specs, Mapping) and all(
    isinstance(spec := specs.get(name), tf.TensorSpec)
    and spec.shape.rank == 0
    and spec.dtype == tf.string
    for name in names
  )


def _function(preprocessor: Any) -> Any:
  while isinstance(preprocessor, functools.partial):
    preprocessor = preprocessor.func
  return inspect.unwrap(preprocessor)


def _arguments(preprocessor: Any) -> dict[str, Any]:
  found: dict[str, Any] = {}
  while isinstance(preprocessor, functools.partial):
    if preprocessor.args:
      return {'': preprocessor.args}
    found = {**preprocessor.keywords, **found}
    preprocessor = preprocessor.func
  return found


_TOKENIZATIONS = {
  features.tokenize: (),
  seqio.preprocessors.tokenize: ('copy_pretokenized', 'with_eos'),
  seqio.preprocessors.tokenize_and_append_eos: ('copy_pretokenized',),
}
_EOS = (seqio.preprocessors.append_eos, seqio.preprocessors.append_eos_after_trim)
_WITHOUT_MISSING = inspect.unwrap(preference_features.without_missing)
_SELECTION = inspect.unwrap(source_tasks.keep_fields)


def _is_tokenization(preprocessor: Any) -> bool:
  known = _TOKENIZATIONS.get(_hashable(preprocessor))
  return known is not None and {*_arguments(preprocessor)} <= {*known}


def _hashable(preprocessor: Any) -> Any:
  function = _function(preprocessor)
  return function if inspect.isfunction(function) else None


def _appends(preprocessor: Any) -> bool:
  function = _function(preprocessor)
  if function is seqio.preprocessors.tokenize_and_append_eos:
    return True
  return bool(_arguments(preprocessor).get('with_eos', False))


def _any_eos(later: Sequence[Any]) -> bool:
  return any(_function(p) in _EOS for p in later)


def _is_known(preprocessor: Any) -> bool:
  if isinstance(preprocessor, seqio.CacheDatasetPlaceholder):
    return True
  if _function(preprocessor) in _EOS:
    return not _arguments(preprocessor)
  return _filter(preprocessor) is not None


def _is_selection(preprocessor: Any) -> bool:
  """Columns are chosen: with those that are read, nothing is left to do."""
  return _function(preprocessor) is _SELECTION


def _filter(preprocessor: Any) -> Callable[[Columns, Texts, Mapping[str, bool]], Keep] | None:
  """What a known step does after the tokenisation: changes columns, and says which rows stay."""
  function, arguments = _function(preprocessor), _arguments(preprocessor)
  if function is aya_mixtures.long_answers and {*arguments} == {'min_tokens'}:
    return functools.partial(_long_answers, least=arguments['min_tokens'])
  if function is _WITHOUT_MISSING and not arguments:
    return _without_missing
  return None


def _long_answers(columns: Columns, texts: Texts, eos: Mapping[str, bool], *, least: int) -> Keep:
  del texts
  return [len(tokens) - eos['targets'] >= least for tokens in columns['targets']]


def _without_missing(columns: Columns, texts: Texts, eos: Mapping[str, bool]) -> Keep:
  del eos
  empty = np.zeros(0, np.int32)
  for name in ('chosen', 'rejected'):
    columns[name] = [
      tokens if text else empty for tokens, text in zip(columns[name], texts[name], strict=True)
    ]
  return [True] * len(columns['chosen'])
