"""Which word of a translation stands for which of its source, learned from the pairs alone."""

import re
from collections.abc import Sequence

import numpy as np

_ITERATIONS = 8
_DIAGONAL = 4.0  # how much words keep their place, as fast_align's first value
_STEM = 6  # letters by which forms of one word are known as such
_PREFIXES = re.compile(r'^(?:[וכש]?[הלבמש]|[וف]?(?:ال|لل|بال|كال)|[ولب])(?=\w{3})')  # of he, ar
_WORD = re.compile(r'[^\W_]+(?:[-.][^\W_]+)*')


def words(text: str) -> list[str]:
  """Words of a text, lower case, without punctuation; an elided article is a word ("l'" -> 'l')."""
  return _WORD.findall(text.lower())


def stem(word: str) -> str:
  """What forms of a word have in common, nearly: its first letters, in Semitic scripts unprefixed.

  >>> stem('desarrolladora') == stem('desarrollador')
  True
  """
  return _PREFIXES.sub('', word)[:_STEM]


def _ids(texts: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], int]:
  known: dict[str, int] = {}
  rows = [
    np.array([known.setdefault(stem(word), len(known)) for word in row], int) for row in texts
  ]
  return rows, max(len(known), 1)


def align(
  sources: Sequence[Sequence[str]], translations: Sequence[Sequence[str]]
) -> list[np.ndarray]:
  """Probabilities that words stand for each other: IBM's first model with a prior for the diagonal.

  Args:
    sources, translations: words of each sentence.

  Returns:
    Of each sentence [source words, translated words]; each column sums to 1.
  """
  source_ids, _ = _ids(sources)
  target_ids, width = _ids(translations)
  shapes = [(len(s), len(t)) for s, t in zip(source_ids, target_ids, strict=True)]
  if not any(s and t for s, t in shapes):
    return [np.zeros(shape) for shape in shapes]
  pairs = np.concatenate(
    [(s[:, None] * width + t).ravel() for s, t in zip(source_ids, target_ids, strict=True)]
  )
  prior = np.concatenate([_prior(*shape).ravel() for shape in shapes])
  starts = np.cumsum([0, *(t for _, t in shapes[:-1])])
  columns = np.concatenate(
    [np.tile(np.arange(t) + start, s) for (s, t), start in zip(shapes, starts, strict=True)]
  ).astype(int)
  kinds, kind = np.unique(pairs, return_inverse=True)
  rows = kinds // width
  table = np.full(len(kinds), 1.0)
  for _ in range(_ITERATIONS):
    posterior = prior * table[kind]
    posterior /= np.bincount(columns, posterior)[columns]
    counts = np.bincount(kind, posterior, len(kinds))
    table = counts / np.bincount(rows, counts)[rows]
  ends = np.cumsum([s * t for s, t in shapes])
  return [
    part.reshape(shape) for part, shape in zip(np.split(posterior, ends[:-1]), shapes, strict=True)
  ]


def _prior(source: int, target: int) -> np.ndarray:
  places = (np.arange(source) + 0.5) / max(source, 1)
  others = (np.arange(target) + 0.5) / max(target, 1)
  return np.exp(-_DIAGONAL * np.abs(places[:, None] - others))
