"""Metric functions of the tasks: (targets, predictions) -> {name: percent}."""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sentencepiece

from aya_train.tasks.metrics import intervals, references


@functools.cache
def _normalizer() -> sentencepiece.SentencePieceNormalizer:
  return sentencepiece.SentencePieceNormalizer(rule_name='nmt_nfkc')


def normalize(text: str) -> str:
  """The form in which texts are compared: what mT5's tokenizer keeps of them.

  Its rule nmt_nfkc folds width and compatibility forms, splits Thai and Lao am vowels, and turns
  any run of spaces, ZWNJ and direction marks into one space; a model can never produce what it has
  removed. Marks on one letter, which that rule leaves as they were typed, are put in the order of
  NFC: Burmese, Hebrew and Arabic are typed in either.
  """
  kept = _normalizer().normalize(text).replace('\u2581', ' ').strip()
  return unicodedata.normalize('NFC', kept)


def with_language(
  text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> tuple[str, str]:
  """A postprocess_fn: (language_code of the example, decoded text)."""
  del is_target
  if example is None or 'language_code' not in example:
    raise ValueError(
      'with_language needs the example with its language_code, got '
      f'{None if example is None else sorted(example)}: keep that field through preprocessing'
    )
  code = example['language_code']
  code = code.item() if hasattr(code, 'item') else code
  return (code.decode() if isinstance(code, bytes) else str(code)), text


def _percent(hits: Sequence[bool]) -> float:
  return 100.0 * sum(hits) / len(hits) if hits else 0.0


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
  """Percent of predictions equal to their target after `normalize`.

  Raises:
    ValueError: if the two lengths differ.
  """
  hits = [normalize(t) == normalize(p) for t, p in zip(targets, predictions, strict=True)]
  return {'exact_match': _percent(hits)}


def exact_match_by_language(
  targets: Sequence[tuple[str, str]], predictions: Sequence[tuple[str, str]]
) -> dict[str, float]:
  """Exact match in percent over all (language, text) pairs, and over those of each language.

  Returns:
    {'exact_match': ..., 'exact_match/yor': ...}, languages sorted by code.

  Raises:
    ValueError: if the two lengths differ.
  """
  hits = defaultdict(list)
  for (language, target), (_, prediction) in zip(targets, predictions, strict=True):
    hits[language].append(normalize(target) == normalize(prediction))
  overall = _percent([hit for group in hits.values() for hit in group])
  return {'exact_match': overall} | {
    f'exact_match/{language}': _percent(hits[language]) for language in sorted(hits)
  }


def _bare(text: str) -> str:
  """A label without case, surrounding punctuation and quotes."""
  text = normalize(text).casefold()
  outer = [i for i, c in enumerate(text) if unicodedata.category(c)[0] in 'LMN']
  return text[outer[0] : outer[-1] + 1] if outer else text


def accuracy(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
  """`accuracy`: percent of answers equal to a reference after `normalize`, with its interval."""
  return _accuracy(targets, predictions, normalize)


def label_accuracy(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
  """As `accuracy`, of labels: case, and punctuation around the answer, do not matter."""
  return _accuracy(targets, predictions, _bare)


def _accuracy(
  targets: Sequence[Any], predictions: Sequence[str], form: Callable[[str], str]
) -> dict[str, float]:
  found, answers, note = references.scored(targets, predictions)
  hits = [form(answer) in map(form, each) for each, answer in zip(found, answers, strict=True)]
  return intervals.percent('accuracy', hits) | note
