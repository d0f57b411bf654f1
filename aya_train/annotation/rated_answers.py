"""Tables of answers that were rated one by one, as verdicts about every two of a prompt.

A row is an answer of a system to a prompt, with a number that says how good it is. Of two systems'
answers to one prompt, rated by the same person, the higher number wins.
"""

import collections
import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import system_answers
from aya_train.annotation import pair_verdicts

logger = logging.getLogger(__name__)
PROTOCOL = 'rated one by one'
# What a row has -> the names under which tables have it, the first that is there and not blank.
ALIASES: Mapping[str, tuple[str, ...]] = {
  **{name: system_answers.ALIASES[name] for name in ('inputs', 'answer', 'id', 'language')},
  'system': ('system', 'model', 'model_id', 'model_name', 'generator'),
  'annotator': ('annotator', 'annotator_id', 'rater', 'rater_id', 'worker', 'worker_id', 'judge'),
}
_LARGEST = 1_000  # larger numbers are more likely times, or numbers of rows
_WORDS = {'true': 1.0, 'yes': 1.0, 'false': 0.0, 'no': 0.0}


@dataclasses.dataclass(frozen=True)
class Rating:
  """How a table says which answers are good.

  Attributes:
    column: whose numbers are compared.
    lowest_best: whether the lower number wins, as of ranks.
    columns: key of `ALIASES` -> the table's own name of it.
  """

  column: str
  lowest_best: bool = False
  columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if unknown := sorted({*self.columns} - {*ALIASES}):
      raise ValueError(f'--columns: no column {unknown}; those of a table are {[*ALIASES]}')


@dataclasses.dataclass(frozen=True)
class Rated:
  """An answer with its rating; `prompt` is id and text of what was asked."""

  prompt: tuple[str, str]
  system: str
  answer: str
  value: float
  language: str
  task: str
  by: str
  annotator: str


def read(path: epath.PathLike, rating: Rating) -> list[Rated]:
  """The rated answers of a file of rows (`system_answers.located_rows`).

  Where no column names the system, the file does. Rows without a rating are left out, and counted
  in the log.

  Raises:
    ValueError: a column is missing, or a rating is no number; with the file and its row.
  """
  found, blank = [], 0
  name = system_answers.system_name(str(path))
  for where, row in system_answers.located_rows(epath.Path(path)):
    value = _number(row, rating, where)
    if value is None:
      blank += 1
      continue
    found.append(_rated(row, value, rating, where, name))
  if blank:
    logger.info('%s: %d rows without a rating in %r are left out', path, blank, rating.column)
  return found


def verdicts(rows: Sequence[Rated], rating: Rating) -> list[pair_verdicts.Verdict]:
  """Verdicts about every two systems on each prompt.

  Where no column names annotators, the second rating of a system's answer to a prompt is another
  person's.

  Raises:
    ValueError: no prompt has answers of two systems.
  """
  found = list(_verdicts(rows, -1 if rating.lowest_best else 1))
  if not found:
    raise ValueError(
      f'no prompt has answers of two systems that are rated in {rating.column!r}: {len(rows)} '
      f'rated answers of {sorted({row.system for row in rows})[:10]}. Rows of a prompt have the '
      'same id, or the same text: --columns id=NAME inputs=NAME system=NAME name others'
    )
  return found


def _verdicts(rows: Sequence[Rated], sign: int) -> Iterator[pair_verdicts.Verdict]:
  turns: collections.Counter[tuple[Any, ...]] = collections.Counter()
  # Prompt -> who rated, and for the how many-th time -> system -> what it was rated.
  prompts: dict[tuple[str, ...], dict[tuple[str, int], dict[str, Rated]]] = {}
  for row in rows:
    prompt = (row.task, *row.prompt)
    who = (prompt, row.annotator, row.system)
    time = (row.annotator, turns[who])
    turns[who] += 1
    prompts.setdefault(prompt, {}).setdefault(time, {})[row.system] = row
  for index, by_time in enumerate(prompts.values()):
    for (annotator, turn), by_system in by_time.items():
      for a, b in itertools.combinations(sorted(by_system), 2):
        one, other = by_system[a], by_system[b]
        difference = sign * (one.value - other.value)
        yield pair_verdicts.Verdict(
          task=one.task,
          index=index,
          id=one.prompt[0] or None,
          language=one.language or other.language,
          inputs=one.prompt[1] or one.prompt[0],
          system_a=a,
          system_b=b,
          answer_a=one.answer,
          answer_b=other.answer,
          order=pair_verdicts.APART,
          verdict='A>B' if difference > 0 else 'B>A' if difference < 0 else 'A=B',
          by=one.by,
          annotator=annotator or f'rating {turn + 1}',
          protocol=PROTOCOL,
        )


def _rated(row: Mapping[str, Any], value: float, rating: Rating, where: str, file: str) -> Rated:
  def text(key: str) -> str:
    if (name := rating.columns.get(key)) is not None:
      if name not in row:
        raise ValueError(f'{where} has no column {name!r}; it has {sorted(map(str, row))}')
      found = row[name]
    else:
      found = next((row[n] for n in ALIASES[key] if not _is_blank(row.get(n))), '')
    return system_answers.clean('' if found is None else found)

  identity, inputs, system = text('id'), text('inputs'), text('system')
  if not system and not {*row} & {*ALIASES['system']}:
    system = file
  for key, has in (('id', identity or inputs), ('system', system)):
    if not has:
      raise ValueError(
        f'{where} has no {key}: one of {list(ALIASES[key])}, or --columns {key}=NAME; it has '
        f'{sorted(map(str, row))}'
      )
  by = row.get('by')
  return Rated(
    *((identity, inputs), system, text('answer'), value, text('language')),
    task=system_answers.clean(row.get('task') or ''),
    by=by if by in (pair_verdicts.JUDGE, pair_verdicts.RULE) else pair_verdicts.PERSON,
    annotator=text('annotator'),
  )


def _is_blank(value: Any) -> bool:
  return value is None or (isinstance(value, str) and not value.strip())


def _number(row: Mapping[str, Any], rating: Rating, where: str) -> float | None:
  """The rating of a row, None where it is blank."""
  if rating.column not in row:
    raise ValueError(
      f'{where} has no column {rating.column!r} (--rating); it has {sorted(map(str, row))}'
    )
  value = row[rating.column]
  if _is_blank(value):
    return None
  number = as_number(value)
  if number is None:
    raise ValueError(
      f'{where}: the rating in {rating.column!r} is a number, true or false, got {value!r:.80}'
    )
  return None if math.isnan(number) else number


def as_number(value: Any) -> float | None:
  """A number that a cell holds, also as text, true as 1; None if it holds none, or infinity."""
  if isinstance(value, str) and value.strip().lower() in _WORDS:
    return _WORDS[value.strip().lower()]
  if not isinstance(value, str | int | float | bool):
    return None
  try:
    number = float(value)
  except (ValueError, OverflowError):
    return None
  return None if math.isinf(number) else number


def columns_of_ratings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Columns that could be ratings: small numbers where they are not blank, and not all the same.

  [] where rows name no system.
  """
  if not rows or not any(name in rows[0] for name in ALIASES['system']):
    return []
  others = {*itertools.chain(*ALIASES.values()), 'index', 'idx', 'seed', 'sample', ''}
  found = []
  for name in rows[0]:
    values = [row[name] for row in rows if not _is_blank(row.get(name))]
    numbers = [as_number(value) for value in values]
    is_small = all(number is not None and abs(number) <= _LARGEST for number in numbers)
    if str(name) not in others and is_small and len({*numbers}) > 1:
      found.append(str(name))
  return found
