"""Translation: the same sentences in two languages, as pairs that belong together, or a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from aya_train.tasks.eval import flores_codes, generated_tasks, row_columns
from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import answer_language, answer_shape, translation

TO_ENGLISH, FROM_ENGLISH = 'to_english', 'from_english'
DIRECTIONS = (TO_ENGLISH, FROM_ENGLISH)

TRANSLATE = generated_tasks.Prompt(
  'translate', 'Translate the following text from {source_name} to {target_name}.\n\n{source}'
)

METRICS = (
  translation.translation,
  answer_language.asked_language,
  answer_shape.lengths,
  answer_shape.repetition,
)

_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A text and its place, 'FILE row 3'."""

  where: str
  text: str


Sentences = Mapping[str, Sentence]
"""By their ids, in the order of the file."""


def by_id(found: Iterable[tuple[str, str, str]]) -> dict[str, Sentence]:
  """Sentences by id.

  Args:
    found: places, ids and texts.

  Raises:
    EvalDataError: an id is there twice, or a text is blank.
  """
  sentences: dict[str, Sentence] = {}
  for where, key, text in found:
    if key in sentences:
      raise row_columns.EvalDataError(
        f'{where}: id {key!r} is that of {sentences[key].where} too, so it joins nothing; '
        'remove one of the two'
      )
    if not text.strip():
      raise row_columns.EvalDataError(f'{where}: expected a sentence, got a blank one')
    sentences[key] = Sentence(where, text)
  return sentences


def join(left: Sentences, right: Sentences) -> Iterator[tuple[str, Sentence, Sentence]]:
  """Ids and both sentences, in the order of the left ones.

  Raises:
    EvalDataError: one side lacks an id that the other has; before any pair is given.
  """
  for some, others in ((left, right), (right, left)):
    if missing := [key for key in others if key not in some]:
      first = others[missing[0]].where
      raise row_columns.EvalDataError(
        f'{_file(some)} has {len(some):,} rows and {_file(others)} has {len(others):,}: '
        f'{len(missing)} of its rows have no translation: {", ".join(missing[:_NAMED])}'
        + (' ...' if len(missing) > _NAMED else '')
        + f' (the first at {first}). Both must hold the same sentences'
      )
  for key, sentence in left.items():
    yield key, sentence, right[key]


def _file(sentences: Sentences) -> str:
  where = next((sentence.where for sentence in sentences.values()), 'an empty file')
  return where.rpartition(' ')[0].rpartition(' ')[0] or where


def codes_of(code: str, direction: str) -> tuple[str, str]:
  """Codes of source and target: of a language and English."""
  if direction == TO_ENGLISH:
    return code, flores_codes.ENGLISH
  return flores_codes.ENGLISH, code


def examples(
  source: Sentences, target: Sentences, codes: tuple[str, str]
) -> Iterator[generated_tasks.Example]:
  """Sentences to translate, and their translations.

  Args:
    source, target: the same sentences.
    codes: of FLORES-200, of their languages.

  Raises:
    EvalDataError: one side lacks sentences of the other.
  """
  names = [flores_codes.name(code) for code in codes]
  language = language_codes.resolve(codes[1]).code
  for key, sentence, wanted in join(source, target):
    columns = {'source': sentence.text, 'source_name': names[0], 'target_name': names[1]}
    yield generated_tasks.Example(sentence.where, columns, (wanted.text,), key, language)
