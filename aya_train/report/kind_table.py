"""Exact match by kind of row: beside the untrained model, and beside a model that only copies."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.report import run_record, run_results
from aya_train.tasks import answer_kinds
from aya_train.tasks.metrics import exact_match


@dataclasses.dataclass(frozen=True)
class KindRow:
  """Exact match in percent of the rows of one kind, or of several.

  Attributes:
    name: of the kind.
    rows: how many.
    copied: of answers that are what the prompt asks about, word for word.
    before: of the model that training began with, None if its answers are not kept.
    after: of the newest answers.
  """

  name: str
  rows: int
  copied: float
  before: float | None
  after: float


@dataclasses.dataclass(frozen=True)
class KindTable:
  """What the kinds of a run come to.

  Attributes:
    kinds: one row for each, best first; without those that can only be guessed.
    together: all of these.
    others: those that can only be guessed, in one row, or None.
    why: a sentence on that.
    answered: the rows of `kinds`, for samples.
  """

  kinds: Sequence[KindRow]
  together: KindRow
  others: KindRow | None
  why: str
  answered: Sequence['AnsweredRow']

  @property
  def lines(self) -> list[KindRow]:
    """All rows of the table, from top to bottom."""
    return [*self.kinds, self.together, *([] if self.others is None else [self.others])]


@dataclasses.dataclass(frozen=True)
class AnsweredRow:
  """One decoded row: `hit` now, `before` training (None if not kept), and by a copy."""

  kind: str
  prompt: str
  reference: str
  hit: bool
  before: bool | None
  copied: bool


def of_run(run: run_record.Run) -> KindTable | None:
  """The table of the rows that a run decoded and that have a kind; None if there are none."""
  ruled: dict[str, list[AnsweredRow]] = collections.defaultdict(list)
  guessed: dict[str, list[AnsweredRow]] = collections.defaultdict(list)
  others = why = ''
  for task in run.infer_tasks:
    said = answer_kinds.of(task)
    for row in _answered(run, task):
      if said is None or row.kind in said.ruled:
        ruled[row.kind].append(row)
      else:
        guessed[row.kind].append(row)
        others, why = said.others, said.why
  answered = [row for rows in ruled.values() for row in rows]
  held = [row for rows in guessed.values() for row in rows]
  if not answered:
    return None
  kinds = [_row(kind.replace('_', ' '), rows) for kind, rows in ruled.items()]
  return KindTable(
    sorted(kinds, key=lambda row: (-row.after, row.name)),
    _row(f'All {len(kinds)} kinds' + (' that carry over' if held else ''), answered),
    _row(f'{others} ({len(guessed)} kinds)', held) if held else None,
    why,
    answered,
  )


def percent(value: float | None) -> str:
  """As it is shown; a dash for what is not known."""
  return '–' if value is None else f'{value:.1f} %'


def _row(name: str, rows: Sequence[AnsweredRow]) -> KindRow:
  befores = [row.before for row in rows if row.before is not None]
  return KindRow(
    name,
    len(rows),
    _share([row.copied for row in rows]),
    _share(befores) if len(befores) == len(rows) else None,
    _share([row.hit for row in rows]),
  )


def _share(hits: Sequence[bool]) -> float:
  return 100 * sum(hits) / len(hits)


def _answered(run: run_record.Run, task: str) -> list[AnsweredRow]:
  steps = [record['step'] for record in run.of_kind(run_record.INFER_EVAL + task)]
  before = {}
  if run.first_step in steps and steps[-1] != run.first_step:
    for row in run_results.decoded_rows(run, task, run.first_step):
      if (texts := _texts(row)) is not None:
        before[_prompt(row)] = _equal(*texts)
  found = []
  for row in run_results.decoded_rows(run, task, steps[-1]):
    texts, kind, prompt = _texts(row), row['input'].get('kind'), _prompt(row)
    if texts is None or kind is None:
      continue
    copy = answer_kinds.copied(task, kind, prompt)
    hits = _equal(*texts), before.get(prompt), _equal(texts[0], copy)
    found.append(AnsweredRow(kind, prompt, texts[0], *hits))
  return found


def _prompt(row: Mapping[str, Any]) -> str:
  return row['input'].get('inputs_pretokenized', '')


def _texts(row: Mapping[str, Any]) -> tuple[str, str] | None:
  """Reference and answer, where they are (language, text) pairs or texts."""
  found = []
  for text in (row.get('target'), row.get('prediction')):
    text = text[1] if isinstance(text, list) and len(text) == 2 else text
    if not isinstance(text, str):
      return None
    found.append(text)
  return found[0], found[1]


def _equal(one: str, other: str) -> bool:
  return exact_match.normalize(one) == exact_match.normalize(other)


def sample(table: KindTable, count: int) -> list[AnsweredRow]:
  """Rows at even distances, right and wrong ones and kinds in their shares."""
  rows = sorted(table.answered, key=lambda row: (row.hit, row.kind))
  count = min(count, len(rows))
  picked = [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]
  return sorted(picked, key=lambda row: row.kind)
