"""BLEU, spBLEU and chrF++ by sacrebleu, with intervals from its statistics of each sentence."""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from aya_train import path_facts
from aya_train.tasks.metrics import comparisons, exact_match, intervals, references, words

FLORES_ENV = 'FLORES200_SPM'
FLORES = 'flores200'
# File names under ~/.sacrebleu/models: sacrebleu downloads what is not there.
_SPM_FILES = {
  FLORES: 'flores200sacrebleuspm',
  'flores101': 'sacrebleu_tokenizer_spm.model',
  'spBLEU-1K': 'spbleu-1k_tokenizer_spm.model',
}
NAMES = ('spbleu', 'bleu', 'chrf++', 'chrf')
NORMALIZED = '_normalized'  # ending of a figure of texts in the form that mT5's tokenizer keeps


class FloresTokenizerMissingError(FileNotFoundError):
  """The SentencePiece file of a spBLEU is not on this machine; the message says where it goes."""


def spm_file(tokenize: str = FLORES) -> pathlib.Path:
  """Where the SentencePiece file of a tokenizer is looked for; it need not be there.

  That of flores200 is env FLORES200_SPM, where it is set; else all are where sacrebleu keeps them,
  ~/.sacrebleu/models or $SACREBLEU/models.
  """
  if tokenize == FLORES and (path := os.environ.get(FLORES_ENV)):
    return pathlib.Path(path).expanduser()
  folder = os.environ.get('SACREBLEU') or '~/.sacrebleu'
  return pathlib.Path(folder).expanduser() / 'models' / _SPM_FILES[tokenize]


def has_flores_tokenizer(tokenize: str = FLORES) -> bool:
  """Whether spBLEU can be computed here."""
  return spm_file(tokenize).is_file() and importlib.util.find_spec('sacrebleu') is not None


def _is_wanted() -> bool:
  """Whether spBLEU is to be computed: a file that is named and not there is no silent BLEU."""
  return bool(os.environ.get(FLORES_ENV)) or has_flores_tokenizer()


def _sacrebleu():
  try:
    from sacrebleu import metrics
  except ImportError as error:
    raise words.MissingLibraryError('BLEU and chrF', 'sacrebleu') from error
  return metrics


@functools.lru_cache(maxsize=4)
def _pieces(path: str):
  import sentencepiece

  try:
    return sentencepiece.SentencePieceProcessor(model_file=path)
  except (RuntimeError, OSError) as error:
    raise ValueError(
      f'{path} is no SentencePiece model ({error}): spBLEU needs that of FLORES-200 (SPM-200 of '
      f'NLLB) there, or where {FLORES_ENV} says'
    ) from error


def _bleu(tokenize: str):
  metrics = _sacrebleu()
  if tokenize not in _SPM_FILES:
    return metrics.BLEU(tokenize=tokenize)
  path = spm_file(tokenize)
  if not path_facts.is_file(path):
    raise FloresTokenizerMissingError(
      f'spBLEU needs the SentencePiece file of {tokenize}, and there is none at {path}: put it '
      f'there, or name it in {FLORES_ENV} (it is the SPM-200 of NLLB), or take '
      "translation.bleu(tokenize='13a') or chrF++, which need no file"
    )
  model = _pieces(str(path))
  metric = metrics.BLEU(tokenize='none', force=True)
  metric.tokenizer = lambda line: ' '.join(model.encode(line, out_type=str))
  metric.tokenizer_signature = tokenize
  return metric


def _metric(name: str, tokenize: str | None = None, word_order: int = 2):
  """sacrebleu's metric object of one of `NAMES`."""
  if name == 'spbleu':
    return _bleu(tokenize or FLORES)
  if name == 'bleu':
    return _bleu(tokenize or '13a')
  if name in ('chrf++', 'chrf'):
    return _sacrebleu().CHRF(word_order=0 if name == 'chrf' else word_order)
  raise ValueError(f'{name!r} is none of {NAMES}')


def _streams(found: Sequence[Sequence[str]]) -> list[list[str | None]]:
  """References as sacrebleu takes them: a stream for the first of each, the second, ..."""
  most = max(map(len, found))
  return [[each[i] if i < len(each) else None for each in found] for i in range(most)]


def _statistics(metric: Any, found: Sequence[Sequence[str]], answers: Sequence[str]) -> np.ndarray:
  """Statistics of each sentence [sentences, statistics], of which a corpus's figure is made."""
  extracted = metric._extract_corpus_statistics(list(answers), _streams(found))
  return np.asarray(extracted, np.float64)


def _figure(metric: Any, sums: np.ndarray) -> float:
  return float(metric._compute_score_from_stats(sums.astype(np.int64).tolist()).score)


def _figures(
  name: str, metric: Any, targets: Sequence[Any], predictions: Sequence[str]
) -> dict[str, float]:
  found, answers, note = references.scored(targets, predictions)
  if not found:
    return note
  figure = functools.partial(_figure, metric)
  normal = [[exact_match.normalize(text) for text in each] for each in found]
  pairs = ((found, answers), (normal, [exact_match.normalize(text) for text in answers]))
  figures: dict[str, float] = {}
  for ending, (texts, said) in zip(('', NORMALIZED), pairs, strict=True):
    statistics = _statistics(metric, texts, said)
    interval = intervals.statistic(figure, statistics)
    figures |= intervals.with_bounds(f'{name}{ending}', figure(statistics.sum(0)), interval)
  return figures | note


def spbleu(
  targets: Sequence[Any], predictions: Sequence[str], *, tokenize: str = FLORES
) -> dict[str, float]:
  """BLEU over SentencePiece tokens: `spbleu`, 0 to 100, with its interval.

  `spbleu_normalized` is the same of texts after `exact_match.normalize`, references and answers: a
  model with mT5's vocabulary cannot write what the tokenizer has removed or folded from them.

  Examples without a reference are left out and counted; several references count together.

  Raises:
    FloresTokenizerMissingError: its file is not here; nothing is downloaded.
    words.MissingLibraryError: sacrebleu is not installed.
  """
  return _figures('spbleu', _metric('spbleu', tokenize), targets, predictions)


def bleu(
  targets: Sequence[Any], predictions: Sequence[str], *, tokenize: str = '13a'
) -> dict[str, float]:
  """`bleu` and `bleu_normalized`, with a tokenizer of sacrebleu's.

  These are 13a, intl, zh, char, ja-mecab, ko-mecab and none.
  """
  return _figures('bleu', _metric('bleu', tokenize), targets, predictions)


def chrf(
  targets: Sequence[Any], predictions: Sequence[str], *, word_order: int = 2
) -> dict[str, float]:
  """`chrf++`, or with word_order 0 `chrf`, with its interval, and `..._normalized`."""
  name = 'chrf++' if word_order else 'chrf'
  return _figures(name, _metric(name, word_order=word_order), targets, predictions)


def translation(targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
  """What can be computed on this machine: chrF++, and spBLEU, or BLEU (13a) without its file.

  To say which, `signature` goes beside the figures.

  Raises:
    FloresTokenizerMissingError: FLORES200_SPM names a file that is not there.
    ValueError: the file is no SentencePiece model.
  """
  other = spbleu if _is_wanted() else bleu
  return other(targets, predictions) | chrf(targets, predictions)


def signature(name: str, *, tokenize: str | None = None, references_count: int = 1) -> str:
  """How sacrebleu says what was computed: 'nrefs:1|case:mixed|...|version:2.6.0'."""
  metric = _metric(name, tokenize)
  metric.num_refs = references_count
  return metric.get_signature().format()


def compare(
  targets: Sequence[Any],
  predictions_a: Sequence[str],
  predictions_b: Sequence[str],
  name: str = 'chrf++',
  *,
  tokenize: str | None = None,
) -> comparisons.Comparison:
  """System A minus system B on the same sentences, by paired bootstrap.

  The p value is twice the smaller share of resamples on either side of 0, at least 1 in as many.
  """
  metric = _metric(name, tokenize)
  found, first, _ = references.scored(targets, predictions_a)
  _, second, _ = references.scored(targets, predictions_b)
  if not found:
    return comparisons.Comparison(0.0, 0.0, 0.0, 1.0, 1.0, 0)
  a, b = _statistics(metric, found, first), _statistics(metric, found, second)
  figure = functools.partial(_figure, metric)
  resampled = [
    figure(x) - figure(y) for x, y in zip(intervals.sums(a), intervals.sums(b), strict=True)
  ]
  p_value = _two_sided(np.asarray(resampled))
  low, high = intervals.bounds(resampled)
  difference = figure(a.sum(0)) - figure(b.sum(0))
  return comparisons.Comparison(difference, low, high, p_value, p_value, len(found))


def _two_sided(differences: np.ndarray) -> float:
  below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
  return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def sentence(name: str, found: Sequence[str], prediction: str) -> float:
  """The figure of one sentence, for pages and comparisons; 0 without references."""
  if not found:
    return 0.0
  metric = _metric(name)
  if name in ('bleu', 'spbleu'):
    metric.effective_order = True
  return float(metric.sentence_score(prediction, list(found)).score)
