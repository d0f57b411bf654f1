"""SeqIO tasks of pairs: `inputs` (query), `targets`, `negative_1` ..., `labels` (source, group).

The prompts of both sides (`set_prompts`, the gin macros QUERY_PROMPT and PASSAGE_PROMPT) are put
before the texts when they are tokenised. They are a part of a task's definition: with others, it is
prepared anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import features, sliced_source
from aya_train.tasks.retrieval import text_pairs

QUERY_PROMPT_ENV, PASSAGE_PROMPT_ENV = 'AYA_TRAIN_QUERY_PROMPT', 'AYA_TRAIN_PASSAGE_PROMPT'
NEGATIVES = tuple(f'negative_{i + 1}' for i in range(text_pairs.MAX_NEGATIVES))
LABELS = 'labels'
TEXTS = ('inputs', 'targets', *NEGATIVES)

_TEXT = tf.TensorSpec((), tf.string)
_SIGNATURE = {
  'inputs': _TEXT,
  'targets': _TEXT,
  'negatives': tf.TensorSpec((None,), tf.string),
  LABELS: tf.TensorSpec((2,), tf.int32),
  'language_code': _TEXT,
  'dataset': _TEXT,
  'task_type': _TEXT,
}
_sources: list[PairSource] = []


def set_prompts(query: str, passage: str) -> None:
  """What is put before queries and before all other texts, for tasks registered already too.

  Processes that this one starts take them over.
  """
  os.environ[QUERY_PROMPT_ENV], os.environ[PASSAGE_PROMPT_ENV] = query, passage
  for source in _sources:
    source.prompts = prompts()


def prompts() -> tuple[str, str]:
  """Those of queries and of all other texts."""
  return os.environ.get(QUERY_PROMPT_ENV, ''), os.environ.get(PASSAGE_PROMPT_ENV, '')


class PairSource(sliced_source.SliceableSource):
  """Pairs of texts, read at each use.

  Attributes:
    prompts: of queries and of all other texts.
    content: what decides the pairs beside the files, for the fingerprint of the task.
  """

  def __init__(
    self,
    name: str,
    read: Callable[[str], Iterable[text_pairs.TextPair]],
    splits: Sequence[str] = ('train',),
    *,
    content: str = '',
  ):
    """A source.

    Args:
      name: of the data set, for reports.
      read: gives the pairs of a split.
      splits: that there are.
      content: see the attribute.
    """
    self.dataset_name = name
    self._read = read
    self.content = content
    self.prompts = prompts()
    _sources.append(self)
    super().__init__(splits=tuple(splits))

  def pairs(self, split: str) -> Iterable[text_pairs.TextPair]:
    """Checked pairs without prompts.

    Raises:
      PairError: a text is empty.
      ValueError: no such split.
    """
    if split not in self.splits:
      raise ValueError(f'{self.dataset_name!r} has no split {split!r}; it has {list(self.splits)}')
    return text_pairs.checked(self._read(split))

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Texts of a split with their prompts, in the order of the files."""
    if shard_info is not None and shard_info.num_shards > 1:
      raise ValueError(f'{self.dataset_name!r} is read as one shard')
    query, passage = self.prompts

    def row(pair: text_pairs.TextPair) -> dict[str, Any]:
      return {
        'inputs': query + pair.query,
        'targets': passage + pair.target,
        'negatives': [passage + text for text in pair.negatives],
        LABELS: [text_pairs.number(pair.source), text_pairs.number(pair.group)],
        'language_code': pair.language,
        'dataset': self.dataset_name,
        'task_type': 'retrieval',
      }

    return tf.data.Dataset.from_generator(
      lambda: map(row, self.pairs(split)), output_signature=_SIGNATURE
    )

  def whole_count(self, split: str) -> int:
    """Pairs of the split; reads them."""
    return sum(1 for _ in self.pairs(split))

  def whole_shards(self, split: str) -> list[str]:
    """One shard, whatever the number of files."""
    return [self.dataset_name]


@seqio.map_over_dataset
def tokenize_texts(
  row: Mapping[str, tf.Tensor], vocabulary: seqio.Vocabulary
) -> dict[str, tf.Tensor]:
  """All texts of a row to ids, in one go; a negative that is not there has none."""
  spare = tf.fill((text_pairs.MAX_NEGATIVES - tf.size(row['negatives']),), '')
  texts = tf.concat([[row['inputs'], row['targets']], row['negatives'], spare], axis=0)
  ids = vocabulary.encode_tf(texts)
  return {
    **{name: ids[i] for i, name in enumerate(TEXTS)},
    LABELS: row[LABELS],
    'inputs_pretokenized': row['inputs'],
    'targets_pretokenized': row['targets'],
    **{name: row[name] for name in ('language_code', 'dataset', 'task_type')},
  }


def tokenize(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """`tokenize_texts` with the shared vocabulary, which is opened before TensorFlow would."""
  features.VOCABULARY.load_model()
  return tokenize_texts(dataset, vocabulary=features.VOCABULARY)


OUTPUT_FEATURES = {
  **{name: seqio.Feature(features.VOCABULARY, add_eos=True) for name in TEXTS},
  LABELS: seqio.Feature(seqio.PassThroughVocabulary(size=2**31 - 1), add_eos=False),
}


def add(name: str, source: PairSource) -> str:
  """Registers a task over pairs, and returns its name. Nothing is opened."""
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    metric_fns=[],
    output_features=OUTPUT_FEATURES,
  )
  return name


def temperature_rate(task: seqio.Task, *, temperature: float = 0.3) -> float:
  """Number of examples to the power of `temperature`: 1 is by size, 0 the same for all.

  As multilingual models balance their languages (0.3 in mT5 and mBERT's descendants).
  """
  return float(seqio.mixing_rate_num_examples(task)) ** temperature
