"""What a file is that holds no verdict, and what makes verdicts of it."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import system_answers
from aya_train.annotation import rated_answers

_LOOKED_AT = 1_000
_COMPARED = (
  'exports of the annotation page or of Label Studio (JSON, JSON-MIN), or verdicts.jsonl of '
  '`aya-train judge`'
)


def first_rows(path: epath.Path) -> list[Mapping[str, Any]]:
  """The first rows of a file in any form, those that can be read; [] of none."""
  rows = []
  try:
    for _, row in itertools.islice(system_answers.located_rows(path), _LOOKED_AT):
      rows.append(row)
  except (ValueError, OSError):
    pass
  return rows


def is_verdicts(rows: Sequence[Mapping[str, Any]]) -> bool:
  """Whether rows are verdicts, or mean to be."""
  return any('system_a' in row and 'system_b' in row for row in rows)


def advice(path: epath.Path, rows: Sequence[Mapping[str, Any]]) -> str:
  """What a file is, as far as its first rows tell, and what to do; a sentence without its name."""
  first = rows[0] if rows else {}
  if path.name.lower().endswith(('.html', '.htm')):
    return 'a page: open it in a browser, decide, and give the file that its Export button writes'
  if path.name.lower().endswith('.xml'):
    return "Label Studio's labeling configuration: give what Label Studio exports as JSON"
  if path.name == 'summary.json':
    return 'a summary: give the verdicts.jsonl beside it, or the folder'
  if ratings := rated_answers.columns_of_ratings(rows):
    return (
      'a table of answers that were rated one by one: --rating says by which number two answers '
      f'to a prompt are compared; columns of numbers are {ratings}'
    )
  if 'decision' in first:
    return (
      'rows of data that were rated: `aya-train report data --annotations` shows what people '
      'exported, and `aya-train annotate collect` made this of it'
    )
  if is_answers(first):
    return (
      'answers, and nobody has compared them: `aya-train judge THESE OTHERS` asks a model which '
      'are better, `aya-train annotate pairs THESE OTHERS` makes a page for people. A table that '
      'rates answers has columns for the system, and for a number that --rating names'
    )
  has = f'its rows have {sorted(map(str, first))[:20]}' if first else 'it has no rows'
  return f'{has}. Give {_COMPARED}; or a table of rated answers, and --rating'


def is_answers(row: Mapping[str, Any]) -> bool:
  """Whether a row is a prompt with an answer, as `system_answers` reads it."""
  names = {*row}
  return 'messages' in names or all(
    names & {*system_answers.ALIASES[key]} for key in ('inputs', 'answer')
  )


def objects(path: epath.Path) -> Any:
  """The whole JSON value of a file.

  Raises:
    ValueError: it is none.
  """
  try:
    return json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'no JSON ({error}): was it saved whole?') from error
