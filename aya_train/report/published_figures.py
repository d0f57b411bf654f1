"""What others published on the benchmarks that we evaluate, with where it stands.

Two files hold it: `published/xmtf.tsv`, by language and by median and maximum over the prompts (the
repository of Muennighoff et al. 2022), and `published/aya_101.tsv`, means over languages (the paper
of Aya-101). Values stay as they were printed: '49.50' is not 49.5.
"""

import dataclasses
import functools
import importlib.resources
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from aya_train.tasks.languages import language_codes

Statistic = Literal['median', 'max']
XMTF, AYA = 'xmtf.tsv', 'aya_101.tsv'
ABSENT = '-'
BESIDE = ('mT0-13B', 'BLOOMZ')
"""Models of xmtf.tsv that pages show beside ours unless told otherwise."""

_STATISTICS: dict[str, Statistic] = {'Median acc.': 'median', 'Max acc.': 'max'}
_NO_ISO = {'jp': 'jpn', 'qu': 'que'}  # XWinograd's folder of Japanese, XCOPA's of Quechua

# Rows of the split that the figures of xmtf.tsv are of; its shares are multiples of 1 / rows.
ROWS: dict[str, dict[str, int]] = {
  'xcopa': dict.fromkeys(
    ('est', 'hat', 'ita', 'ind', 'que', 'swa', 'tam', 'tha', 'tur', 'vie', 'zho'), 100
  ),
  'xnli': dict.fromkeys(
    ('ara', 'bul', 'deu', 'ell', 'eng', 'spa', 'fra', 'hin', 'rus', 'swa', 'tha', 'tur', 'urd')
    + ('vie', 'zho'),
    2490,
  ),
  'xstory_cloze': dict.fromkeys(
    ('ara', 'spa', 'eus', 'hin', 'ind', 'mya', 'rus', 'swa', 'tel', 'zho'), 1511
  ),
  'xwinograd': {'eng': 2325, 'fra': 83, 'jpn': 959, 'por': 263, 'rus': 315, 'zho': 504},
}

PAPER_LANGUAGES = {
  **{benchmark: len(rows) for benchmark, rows in ROWS.items()},
  'mmlu': 31,
  'flores': 93,
  'xlsum': 43,
  'tydiqa': 11,
}
"""Over how many languages the means of the Aya paper are."""

# Where the paper says two things.
CONTRADICTIONS: dict[str, str] = {
  'xcopa': 'The mean of mT0x over XCOPA, XNLI, XStoryCloze and XWinograd is 65.8 in Table 5 of the '
  'Aya paper and 65.4 in its text; the four figures of the table give 65.8.',
  'mmlu': 'Multilingual MMLU has 31 languages in tables of the Aya paper (4 and 6) and 26 in its '
  'text.',
  'preference': 'The human preference for Aya over mT0 and mT0x is 77 % in the results of the Aya '
  'paper and 75 % in its introduction.',
}
MT0_TWICE = (
  'mT0 of the Aya paper was trained anew by its authors; mT0-13B is the released model as its own '
  'authors scored it, 0.3 to 2.6 points higher. Their BLOOMZ is the same.'
)


@dataclasses.dataclass(frozen=True)
class ByLanguage:
  """Accuracy of models on a benchmark in one language, over one set of prompts.

  Attributes:
    benchmark: 'xcopa'.
    config: the language as the source writes it, 'et'.
    language: ISO 639-3; '' where the config is no language.
    split: 'validation'.
    prompts: 'EN', 'MT' or 'HT': English, machine or human translated.
    metric: as the source names it: 'Median acc.', 'Max acc.', 'Pass@1'.
    values: model -> figure as printed.
  """

  benchmark: str
  config: str
  language: str
  split: str
  prompts: str
  metric: str
  values: dict[str, str]

  @property
  def statistic(self) -> Statistic | None:
    return _STATISTICS.get(self.metric)


@dataclasses.dataclass(frozen=True)
class PaperFigure:
  """One figure of the Aya paper; `where` names the table or part."""

  benchmark: str
  subset: str
  metric: str
  model: str
  value: str
  where: str


def source(file: str) -> list[str]:
  """The lines that say where a file is from: repository, commit, path, licence, changes."""
  return [line.removeprefix('# ') for line in _lines(file) if line.startswith('#')]


def _lines(file: str) -> list[str]:
  path = importlib.resources.files('aya_train.report') / 'published' / file
  return path.read_text(encoding='utf-8').splitlines()


def _table(file: str) -> Iterator[dict[str, str]]:
  rows = [line.split('\t') for line in _lines(file) if not line.startswith('#')]
  for row in rows[1:]:
    yield dict(zip(rows[0], row, strict=True))


@functools.cache
def by_language() -> tuple[ByLanguage, ...]:
  """All rows of xmtf.tsv, in the order of the source."""
  found = []
  for row in _table(XMTF):
    keys = ('dataset', 'config', 'split', 'prompts', 'metric')
    dataset, config, split, prompts, metric = (row.pop(key) for key in keys)
    del row['task']
    language = _language(config) if dataset in ROWS else ''
    found.append(ByLanguage(dataset, config, language, split, prompts, metric, row))
  return tuple(found)


def _language(config: str) -> str:
  return _NO_ISO.get(config) or language_codes.resolve(config).code


@functools.cache
def paper() -> tuple[PaperFigure, ...]:
  """All rows of aya_101.tsv."""
  return tuple(PaperFigure(**row) for row in _table(AYA))


def models() -> list[str]:
  """Models of xmtf.tsv, in its order."""
  return list(by_language()[0].values)


def languages_of(
  benchmark: str, statistic: Statistic = 'median', prompts: str = 'EN'
) -> dict[str, dict[str, str]]:
  """ISO 639-3 code -> model -> figure as printed, without those absent; {} if nobody published."""
  return {
    row.language: {model: v for model, v in row.values.items() if v != ABSENT}
    for row in by_language()
    if (row.benchmark, row.statistic, row.prompts) == (benchmark, statistic, prompts)
    and row.language
  }


def mean_of(
  benchmark: str, model: str, languages: Iterable[str], statistic: Statistic = 'median'
) -> float | None:
  """Mean over languages of a model's published figures; None unless it has all of them."""
  table = languages_of(benchmark, statistic)
  values = [table.get(code, {}).get(model) for code in languages]
  if not values or None in values:
    return None
  return statistics.fmean(float(value) for value in values if value is not None)


def split_of(benchmark: str) -> str | None:
  """The split of a benchmark that xmtf.tsv is about."""
  return next((row.split for row in by_language() if row.benchmark == benchmark), None)


def paper_rows(benchmark: str, subset: str = '', metric: str = '') -> Sequence[PaperFigure]:
  """The paper's figures of a benchmark; of all its subsets and metrics where none is named."""
  return [
    row
    for row in paper()
    if row.benchmark == benchmark
    and subset in ('', row.subset)
    and (not metric or row.metric.casefold() == metric.casefold())
  ]


def known_as(benchmark: str) -> str:
  """The name here of a benchmark that a user calls 'FLORES-200' or 'tydiqa_goldp'."""
  plain = ''.join(c for c in benchmark.casefold() if c.isalnum())
  names = {''.join(c for c in name if c.isalnum()): name for name in _benchmarks()}
  if plain in names:
    return names[plain]
  return _OTHER_NAMES.get(plain, benchmark)


_OTHER_NAMES = {
  'flores200': 'flores',
  'tydiqagoldp': 'tydiqa',
  'multilingualmmlu': 'mmlu',
  'mmmlu': 'mmlu',
  'okapimmlu': 'mmlu',
  'xstorycloze': 'xstory_cloze',
  'xsc': 'xstory_cloze',
}


def _benchmarks() -> set[str]:
  return {*ROWS, *(row.benchmark for row in paper())}
