"""ROUGE by rouge-score, over words as ICU finds them, so that it is defined in every script."""

import functools
from collections.abc import Sequence
from typing import Any

from aya_train.tasks.metrics import exact_match, intervals, references, words

TYPES = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')


@functools.cache
def _scorer():
  try:
    from rouge_score import rouge_scorer
  except ImportError as error:
    raise words.MissingLibraryError('ROUGE', 'rouge-score') from error
  return rouge_scorer.RougeScorer(TYPES, tokenizer=words.Tokenizer())


def score(reference: str, prediction: str) -> dict[str, float]:
  """F1 of each of `TYPES`, 0 to 1; rougeLsum takes lines as sentences.

  Texts that have no words (punctuation, nothing) score 1 where they are equal, else 0; so does
  rouge2 of texts of one word each.
  """
  found = {name: value.fmeasure for name, value in _scorer().score(reference, prediction).items()}
  if found['rouge2'] == 0 and (
    exact_match.normalize(reference).casefold() == exact_match.normalize(prediction).casefold()
  ):
    return dict.fromkeys(TYPES, 1.0)
  return found


def best(found: Sequence[str], prediction: str) -> dict[str, float]:
  """The score of the reference with the highest rougeL; 0 without references."""
  scores = [score(reference, prediction) for reference in found]
  return max(scores, key=lambda each: each['rougeL'], default=dict.fromkeys(TYPES, 0.0))


def rouge(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
  """rouge1, rouge2, rougeL and rougeLsum in percent: means of F1 over examples, with intervals.

  Several references: the best one counts. Examples without a reference are left out and counted.

  Raises:
    words.MissingLibraryError: rouge-score or icu4py is not installed.
  """
  found, answers, note = references.scored(targets, predictions)
  scores = [best(each, answer) for each, answer in zip(found, answers, strict=True)]
  figures: dict[str, float] = {}
  for name in TYPES:
    figures |= intervals.percent(name, [each[name] for each in scores])
  return figures | note
