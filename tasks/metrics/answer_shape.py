"""How long answers are, and whether they repeat themselves."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aya_train.tasks.metrics import intervals, references, words

LOOP_REPEATS = 4
LOOP_CHARACTERS = 20


def characters(text: str) -> int:
  """Code points of a text without the spaces around it."""
  return len((text or '').strip())


def _median(name: str, values: np.ndarray) -> dict[str, float]:
  order = np.sort(values)
  place = np.argsort(values, kind='stable')
  figures = np.concatenate(
    [
      order[(np.cumsum(block[:, place], 1) >= len(values) / 2).argmax(1)]
      for block in intervals.draws(len(values))
    ]
  )
  return intervals.with_bounds(name, float(np.median(values)), intervals.bounds(figures))


def lengths(
  targets: Sequence[Any],
  predictions: Sequence[str],
  *,
  vocabulary: Any | Callable[[str], Sequence[Any]] | None = None,
) -> dict[str, float]:
  """Length of answers; references are needed for none but length_ratio.

  Args:
    vocabulary: the task's (whatever has `encode`), or a function from text to tokens.

  Returns:
    answer_characters and answer_characters_median; answer_tokens and its median, given a
    vocabulary; empty: percent of answers without a character; length_ratio: characters of answers
    over those of references (1: as long). All with intervals.
  """
  answers = [prediction or '' for prediction in predictions]
  if len(targets) != len(answers):
    raise ValueError(f'{len(targets)} targets for {len(answers)} predictions')
  if not answers:
    return {}
  counted = {'characters': [characters(answer) for answer in answers]}
  if vocabulary is not None:
    encode = getattr(vocabulary, 'encode', vocabulary)
    counted['tokens'] = [len(encode(answer)) for answer in answers]
  figures: dict[str, float] = {}
  for unit, values in counted.items():
    figures |= intervals.named(f'answer_{unit}', values)
    figures |= _median(f'answer_{unit}_median', np.asarray(values, np.float64))
  figures |= intervals.percent('empty', [not count for count in counted['characters']])
  found, answered, _ = references.scored(targets, answers)
  wanted = [float(np.mean([characters(text) for text in each])) for each in found]
  given = [characters(answer) for answer in answered]
  return figures | intervals.ratio('length_ratio', given, wanted)


def repeated_ngrams(text: str, n: int = 4) -> float:
  """Share of word n-grams that occurred before in the text, 0 to 1; 0 of fewer than n words."""
  parts = words.segments(text)
  grams = list(zip(*(parts[i:] for i in range(n)), strict=False))
  return 1 - len(Counter(grams)) / len(grams) if grams else 0.0


def is_loop(text: str) -> bool:
  """Whether a text ends in a unit said 4 times or more, over 20 characters or more.

  The last unit may be cut, as it is at the length limit.
  """
  backward = text.rstrip()[::-1]
  borders = [0] * len(backward)  # of each prefix: length of its longest proper border
  for end in range(1, len(backward)):
    border = borders[end - 1]
    while border and backward[end] != backward[border]:
      border = borders[border - 1]
    borders[end] = border + (backward[end] == backward[border])
    period = end + 1 - borders[end]
    if end + 1 >= max(LOOP_CHARACTERS, LOOP_REPEATS * period):
      return True
  return False


def repetition(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
  """repeated_4grams: mean share in percent; loops: percent of answers that end in a loop."""
  answers = [answer or '' for _, answer in zip(targets, predictions, strict=True)]
  return intervals.percent(
    'repeated_4grams', [repeated_ngrams(answer) for answer in answers]
  ) | intervals.percent('loops', [is_loop(answer) for answer in answers])
