"""Which examples of an evaluation are in the training data: overlap of word n-grams.

Text is compared after NFKC, case folding, and dropping punctuation and marks of direction. Words
are runs of letters and digits; in scripts that put no spaces between words (Han, kana, Thai, Lao,
Khmer, Burmese, Tibetan) each character counts as one, with the marks that belong to it.

Evaluation texts are few and training texts many: the n-grams of the evaluation are held in memory,
as 64-bit hashes, and the training texts stream past. A text with fewer words than n is looked for
whole; one with fewer than `min_words` says nothing about its source and is not looked for.
"""

import array
import collections
import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train.tasks import sliced_source, split_slices

# A base character of a script without spaces, with its marks; or a run of letters, marks, digits.
_UNSPACED = (
  '\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u3040-\u30ff\u3400-\u4dbf'
  '\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff'
)
_WORD = re.compile(rf'[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+')
_MAX_HASHES = 50_000_000
_ANSWERS = ('targets', 'chosen', 'rejected')


class _Forms(dict):
  """For str.translate: marks stay with their letters, what is invisible goes."""

  def __missing__(self, code: int) -> int | str | None:
    category = unicodedata.category(chr(code))
    self[code] = found = None if category in ('Cf', 'Mn', 'Me') else code
    return found


_WITHOUT_MARKS = _Forms()


def words(text: str) -> list[str]:
  """The words that are compared."""
  folded = unicodedata.normalize('NFKC', text).casefold()
  # Vowel signs in Indic scripts are marks that tell words apart, but they are dropped alike on
  # both sides, and texts differ in how they compose them.
  return _WORD.findall(unicodedata.normalize('NFKD', folded).translate(_WITHOUT_MARKS))


def hash_words(some: Sequence[str]) -> int:
  """63-bit hash of a sequence of words."""
  digest = hashlib.blake2b('\x1f'.join(some).encode('utf-8', 'surrogatepass'), digest_size=8)
  return int.from_bytes(digest.digest(), 'little') >> 1


def ngrams(text: str, n: int, min_words: int = 1) -> set[int]:
  """Hashes of a text's n-grams; of the whole text if it is shorter; none under `min_words`."""
  found = words(text)
  if len(found) < min_words:
    return set()
  if len(found) <= n:
    return {hash_words(found)}
  return {hash_words(found[i : i + n]) for i in range(len(found) - n + 1)}


class EvaluationIndex:
  """N-grams of evaluation examples.

  Args:
    n: words of an n-gram, 8 or 13 in common use.
    min_words: shorter texts are not looked for.
  """

  def __init__(self, n: int = 8, min_words: int = 5):
    if not 1 <= min_words <= n:
      raise ValueError(f'need 1 <= min_words <= n, got min_words={min_words}, n={n}')
    self.n, self.min_words = n, min_words
    self.names: list[str] = []
    self.sizes: list[int] = []
    self._short: set[int] = set()  # lengths of texts that are looked for whole
    self._owners: dict[int, array.array] = {}

  def add(self, name: str, texts: Iterable[str]) -> None:
    """Adds an example: its name and the texts to look for, such as its inputs."""
    owner = len(self.names)
    found: set[int] = set()
    for text in texts:
      grams = ngrams(text, self.n, self.min_words)
      length = len(words(text))
      if grams and length < self.n:
        self._short.add(length)
      found |= grams
    self.names.append(name)
    self.sizes.append(len(found))
    for gram in found:
      self._owners.setdefault(gram, array.array('L')).append(owner)
    if len(self._owners) > _MAX_HASHES:
      raise ValueError(
        f'evaluation has over {_MAX_HASHES:,} n-grams: check fewer evaluations at a time'
      )

  def hits(self, text: str) -> dict[int, set[int]]:
    """Evaluation examples that share n-grams with a text -> the shared n-grams."""
    found = words(text)
    shared: dict[int, set[int]] = collections.defaultdict(set)
    for length in {self.n, *self._short}:
      for i in range(len(found) - length + 1):
        gram = hash_words(found[i : i + length])
        for owner in self._owners.get(gram, ()):
          shared[owner].add(gram)
    return shared


@dataclasses.dataclass(frozen=True)
class Match:
  """An evaluation example that is in the training data.

  Attributes:
    evaluation: its name, 'task:split row N'.
    overlap: share of its n-grams that one training row has, the largest found.
    covered: share of its n-grams that some training row has.
    training_rows: rows that share at least `threshold` of its n-grams.
    example: the training text with the largest overlap, cut.
  """

  evaluation: str
  overlap: float
  covered: float
  training_rows: int
  example: str


@dataclasses.dataclass(frozen=True)
class Report:
  """What a check found.

  Attributes:
    n, threshold: of the check.
    evaluation_rows: examples looked for, of which `unchecked` are too short to say anything.
    training_rows: rows read, and how many of them share `threshold` of some example, by task.
    contaminated_rows: by training task.
    matches: contaminated evaluation examples, the largest overlap first.
  """

  n: int
  threshold: float
  evaluation_rows: int
  unchecked: int
  training_rows: int
  contaminated_rows: Mapping[str, int]
  matches: Sequence[Match]

  def to_dict(self) -> dict[str, Any]:
    """As JSON."""
    return {**dataclasses.asdict(self), 'contaminated_evaluation_rows': len(self.matches)}


def compare(
  index: EvaluationIndex, training: Iterable[tuple[str, str]], threshold: float = 0.5
) -> Report:
  """Streams (task, text) past an index.

  Memory grows with the evaluation, not with the training data.

  Args:
    index: of the evaluation.
    training: name of the task, and text of a row.
    threshold: share of an example's n-grams that make a training row count, in (0, 1].
  """
  if not 0 < threshold <= 1:
    raise ValueError(f'threshold must be in (0, 1], got {threshold}')
  covered: dict[int, set[int]] = collections.defaultdict(set)
  best: dict[int, tuple[float, str]] = {}
  rows: collections.Counter[int] = collections.Counter()
  by_task: collections.Counter[str] = collections.Counter()
  total = 0
  for task, text in training:
    total += 1
    counts = False
    for owner, grams in index.hits(text).items():
      covered[owner] |= grams
      overlap = len(grams) / index.sizes[owner]
      if overlap > best.get(owner, (0.0, ''))[0]:
        best[owner] = overlap, f'{task}: {text[:300]}'
      if overlap >= threshold:
        rows[owner] += 1
        counts = True
    by_task[task] += counts
  matches = [
    Match(
      index.names[owner],
      best[owner][0],
      len(covered[owner]) / index.sizes[owner],
      rows[owner],
      best[owner][1],
    )
    for owner in rows
  ]
  return Report(
    index.n,
    threshold,
    len(index.names),
    sum(size == 0 for size in index.sizes),
    total,
    {task: count for task, count in by_task.most_common() if count},
    sorted(matches, key=lambda m: (-m.overlap, m.evaluation)),
  )


def texts_of(task: seqio.Task, split: str) -> Iterator[tuple[str, str]]:
  """Inputs and targets of a task's rows as text, without tokenising where its source has them.

  A question with options is one row, its targets are the options, a line each; so are both answers
  of a pair. A prompt without an answer has '' for targets.

  Raises:
    ValueError: the task has no text.
  """
  dataset = task.source.get_dataset(split=split, shuffle=False)
  if {'inputs', 'options'} <= {*dataset.element_spec}:
    dataset = dataset.map(
      lambda row: {
        'inputs': row['inputs'],
        'targets': tf.strings.reduce_join(row['options'], separator='\n'),
      }
    )
  names = _text_columns(dataset.element_spec, '')
  if len(names) < 2:
    dataset = task.preprocess_precache(dataset, seed=0)
    names = _text_columns(dataset.element_spec, '_pretokenized')
  if not names:
    raise ValueError(f'task {task.name!r} has no text: {sorted(dataset.element_spec)}')
  for batch in dataset.map(lambda row: tuple(row[name] for name in names)).batch(1_024):
    for texts in zip(*(column.numpy() for column in batch), strict=True):
      inputs, *answers = (text.decode(errors='replace') for text in texts)
      yield inputs, '\n'.join(answer for answer in answers if answer)


def _text_columns(spec: Mapping[str, tf.TensorSpec], suffix: str) -> list[str]:
  """Names of the prompt's column and of those of its answers; none without a prompt."""
  names = [f'{name}{suffix}' for name in ('inputs', *_ANSWERS)]
  there = [n for n in names if n in spec and spec[n].dtype == tf.string and not spec[n].shape.rank]
  return there if names[0] in there else []


def check(
  training: str,
  evaluations: Sequence[tuple[str, str]],
  *,
  n: int = 8,
  threshold: float = 0.5,
  min_words: int = 5,
  max_rows: int | None = None,
) -> Report:
  """Looks for evaluation examples in the training split of a mixture.

  Args:
    training: name of a mixture or task.
    evaluations: pairs of a task or mixture and its split.
    n, threshold, min_words: see `EvaluationIndex` and `compare`.
    max_rows: rows of each training task to read; None for all.

  Raises:
    ValueError: unknown names, or nothing to look for.
  """
  index = EvaluationIndex(n, min_words)
  for name, split in evaluations:
    for task in _tasks(name, split):
      for number, (inputs, _) in enumerate(texts_of(task, split)):
        index.add(f'{task.name}:{split} row {number + 1}', [inputs])
  if not any(index.sizes):
    raise ValueError(
      f'{evaluations}: no example of {min_words} words or more among {len(index.names)}'
    )

  def rows() -> Iterator[tuple[str, str]]:
    for task in _tasks(training, 'train'):
      for number, pair in enumerate(texts_of(task, 'train')):
        if max_rows is not None and number >= max_rows:
          break
        yield task.name, '\n'.join(pair)

  return compare(index, rows(), threshold)


def _tasks(name: str, split: str) -> list[seqio.Task]:
  provider = seqio.get_mixture_or_task(name)
  tasks = [provider] if isinstance(provider, seqio.Task) else provider.tasks
  found = [sliced_source.with_split(t, split) for t in tasks if split_slices.has(t, split)]
  if not found:
    raise ValueError(f'{name!r} has no split {split!r}')
  return found
