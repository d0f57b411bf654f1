"""What `aya-train translate` says of the data sets of a mixture that it made."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train.tasks.languages import aya101, writing_direction
from aya_train.tasks.user import user_data
from aya_train.translation import translation_output

logger = logging.getLogger(__name__)
LONGEST = 600
"""Characters of a text that are shown."""


@dataclasses.dataclass(frozen=True)
class Language:
  """What became of the rows in a language.

  Attributes:
    name, code: 'Yoruba (yor)', and the code that was asked for.
    rows, accepted: numbers of rows.
    rejected: by reason.
    ratio, chrf, score: 5th, 50th and 95th percentile by 'p5', 'p50', 'p95'; {} where there is none.
  """

  name: str
  code: str
  rows: int
  accepted: int
  rejected: Mapping[str, int]
  ratio: Mapping[str, float]
  chrf: Mapping[str, float]
  score: Mapping[str, float]

  @property
  def percent(self) -> float:
    """Of the rows that were accepted."""
    return 100 * self.accepted / max(self.rows, 1)


@dataclasses.dataclass(frozen=True)
class Example:
  """A column of a row beside its translation, in lines that say their direction.

  Attributes:
    language: its name.
    column: 'inputs'.
    reason: why the row was rejected, '' for an accepted one.
  """

  language: str
  column: str
  reason: str
  source: Sequence[writing_direction.Line]
  translation: Sequence[writing_direction.Line]


@dataclasses.dataclass(frozen=True)
class TranslatedSource:
  """A folder that `aya-train translate` wrote.

  Attributes:
    name: of its mixture.
    said: in words, what was translated by what, and under which licences.
    reasons: of rejects, the most frequent first.
    languages: in the order in which they were asked for.
    examples: accepted and rejected ones of each.
  """

  name: str
  said: str
  reasons: Sequence[str]
  languages: Sequence[Language]
  examples: Sequence[Example]


def find(tasks: Iterable[str]) -> list[TranslatedSource]:
  """The translations among the tasks of a mixture, each folder once."""
  folders = dict.fromkeys(
    dataset.folder for task in tasks if (dataset := user_data.find(task)) is not None
  )
  found = []
  for folder in folders:
    path = epath.Path(folder) / translation_output.REPORT
    if not path.exists():
      continue
    try:
      report = json.loads(path.read_text())
      if 'translated_by' in report:
        found.append(_source(report))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      logger.warning('%s is damaged (%r): its translations are not shown', path, error)
  return found


def _source(report: Mapping[str, Any]) -> TranslatedSource:
  by, source = report['translated_by'], report['source']
  settings = [f'{key} {by[key]}' for key in ('beam_size', 'compute_type') if key in by]
  said = (
    f'{source["name"]} ({source["license"]}), from {aya101.described(source["language"])} by '
    f'{by.get("model", by["engine"])} ({", ".join([by["license"] or "no model", *settings])})'
  )
  if 'scorer' in by:
    said += f', scored by {by["scorer"]["name"]} ({by["scorer"]["license"]})'
  reasons = sorted(report['rejected'], key=lambda r: (-report['rejected'][r], r))
  languages = [_language(code, each) for code, each in report['languages'].items()]
  examples = [
    example
    for each in report['languages'].values()
    for example in _examples(each, report['columns'], source['language'])
  ]
  return TranslatedSource(report['name'], said, reasons, languages, examples)


def _language(code: str, counts: Mapping[str, Any]) -> Language:
  return Language(
    aya101.described(counts['code']),
    code,
    counts['rows'],
    counts['accepted'],
    counts['rejected'],
    *(counts.get(name, {}) for name in ('ratio', 'chrf', 'score')),
  )


def _examples(counts: Mapping[str, Any], columns: Sequence[str], source: str) -> list[Example]:
  chosen = [('', example) for example in counts['examples'][:1]]
  chosen += [(why, first) for why, (first, *_) in counts['rejected_examples'].items()]
  language, code, script = aya101.described(counts['code']), counts['code'], counts['script']
  return [
    Example(
      language,
      column,
      reason,
      _lines(example['source'][column], source, ''),
      _lines(example['translation'][column], code, script),
    )
    for reason, example in chosen
    for column in columns
  ]


def _lines(text: str | None, code: str, script: str) -> list[writing_direction.Line]:
  text = text or ''
  shown = text if len(text) <= LONGEST else text[:LONGEST] + ' …'
  return writing_direction.lines(shown, code, script)
