"""Pairs of answers of the CLDR set: a thing in the language's own format, and in another one's.

Task `cldr.preferences`, made when it is read: nothing is built. Chosen is the answer of a row of
the set about a date, number, percentage, list or measure; rejected is the same thing as another
language writes it. Splits are those of the set; its further training rows are left out.
"""

import functools
from collections.abc import Iterator

import seqio
import tensorflow as tf

from aya_train.tasks.cldr import cldr_rows
from aya_train.tasks.languages import aya101
from aya_train.tasks.preference import preference_features

NAME = 'cldr.preferences'
KINDS = ('date_format', 'number_format', 'percent_format', 'list_format', 'unit_format')
# Formats of many scripts and habits, each with all five kinds.
OTHERS = ('eng', 'deu', 'fra', 'rus', 'hin', 'jpn', 'swa', 'tur', 'vie', 'pes', 'ita', 'ell')


@functools.cache
def _formats(code: str, kind: str) -> dict[tuple[str, ...], str]:
  """What a language writes for each thing that languages draw from."""
  facts = cldr_rows.FACTS[kind](aya101.by_code(code))
  return {fact.entities: fact.answer for fact in facts}


def pairs(split: str) -> Iterator[dict[str, str]]:
  """Rows of a split under `preference_features.COLUMNS`."""
  for row in cldr_rows.rows():
    if row.split != split or row.kind not in KINDS or row.further:
      continue
    order = cldr_rows.shuffled(OTHERS, row.inputs)
    found = (_formats(code, row.kind).get(row.entities) for code in order)
    rejected = next((text for text in found if text and text != row.targets), None)
    if rejected is not None:
      yield {
        'inputs': row.inputs,
        'chosen': row.targets,
        'rejected': rejected,
        'language_code': row.language_code,
        'script': aya101.by_code(row.language_code).script,
        'dataset': 'cldr',
        'task_type': row.kind,
      }


class PairSource(seqio.FunctionDataSource):
  """The pairs of a split, in the order of the languages."""

  def __init__(self):
    super().__init__(self._dataset, splits=cldr_rows.SPLITS)

  @staticmethod
  def _dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    del shuffle_files, seed
    text = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      lambda: pairs(split), output_signature=dict.fromkeys(preference_features.COLUMNS, text)
    )


preference_features.add(NAME, PairSource())
