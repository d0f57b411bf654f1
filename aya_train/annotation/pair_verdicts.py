"""A verdict about two answers, whoever gave it: a person, a judge model or a rule."""

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import json_lines

logger = logging.getLogger(__name__)

SCORES = {'A>>B': 1.0, 'A>B': 1.0, 'A=B': 0.5, 'B>A': 0.0, 'B>>A': 0.0}
"""What the first system gets for a verdict."""

PERSON, JUDGE, RULE = 'human', 'judge', 'rule'
BOTH_BAD = 'both_bad'
APART = ''  # the order of answers that were not shown side by side
_TEXTS = ('task', 'inputs', 'system_a', 'system_b', 'answer_a', 'answer_b', 'order', 'by')
_OPTIONAL = ('language', 'annotator', 'protocol', 'problem', 'rule', 'raw', 'key')


@dataclasses.dataclass(frozen=True)
class Verdict:
  """One judgement about the answers of two systems to one prompt: a line of verdicts.jsonl.

  Attributes:
    task, index, id, language, inputs: the prompt; '' or None for what is not known.
    system_a, system_b: whose answers they are.
    answer_a, answer_b: texts.
    order: 'ab' or 'ba': which of them was shown first; `APART` if each was shown alone.
    verdict: a key of `SCORES`, about the systems; None where there is none.
    by: PERSON, JUDGE or RULE.
    annotator: a person's name, or the model that judged; '' for a rule.
    protocol: how it was asked.
    problem: why there is no verdict.
    flags: BOTH_BAD, and what a judge's program noticed.
    raw: the reply, or the person's comment.
    seconds: it took.
  """

  task: str
  index: int
  inputs: str
  system_a: str
  system_b: str
  answer_a: str
  answer_b: str
  order: str
  verdict: str | None
  by: str
  language: str = ''
  annotator: str = ''
  protocol: str = ''
  problem: str = ''
  rule: str = ''
  flags: Sequence[str] = ()
  raw: str = ''
  id: str | None = None
  key: str = ''
  seconds: float | None = None

  @property
  def item(self) -> tuple[str, ...]:
    """What was judged: equal for everyone who saw this prompt with these two answers."""
    sides = sorted([(self.system_a, self.answer_a), (self.system_b, self.answer_b)])
    return (self.inputs, *sides[0], *sides[1])

  @property
  def systems(self) -> tuple[str, str]:
    """Both, by name."""
    first, second = sorted((self.system_a, self.system_b))
    return first, second

  def score_of(self, system: str) -> float | None:
    """1 if the system won, 0.5 for a tie, 0 if it lost; None without a verdict."""
    if self.verdict is None:
      return None
    score = SCORES[self.verdict]
    return score if system == self.system_a else 1 - score

  def answer_of(self, system: str) -> str:
    return self.answer_a if system == self.system_a else self.answer_b

  @property
  def first_won(self) -> float | None:
    """The score of the answer that was shown first; None without a verdict or an order."""
    if self.order == APART:
      return None
    return self.score_of(self.system_a if self.order == 'ab' else self.system_b)

  def to_dict(self) -> dict[str, Any]:
    """As a line of verdicts.jsonl."""
    values = dataclasses.asdict(self)
    return {k: v for k, v in values.items() if k != 'seconds' or v is not None}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'Verdict':
    """Keys that are not known are left out.

    Raises:
      ValueError: a key is missing, or what it holds is not what it should be.
    """
    if missing := [name for name in (*_TEXTS, 'index', 'verdict') if name not in values]:
      raise ValueError(f'a verdict lacks {missing}')
    for name in (*_TEXTS, *_OPTIONAL):
      if not isinstance(values.get(name, ''), str):
        raise ValueError(f'{name} of a verdict is a text, got {values[name]!r}')
    if type(values.get('id')) is int:
      values = {**values, 'id': str(values['id'])}
    if not isinstance(values.get('id'), str | None):
      raise ValueError(f'id of a verdict is a text or null, got {values["id"]!r}')
    if type(values['index']) is not int:
      raise ValueError(f'index of a verdict is a whole number, got {values["index"]!r}')
    flags = values.get('flags', [])
    if not isinstance(flags, list | tuple) or any(not isinstance(flag, str) for flag in flags):
      raise ValueError(f'flags of a verdict are a list of texts, got {flags!r}')
    seconds = values.get('seconds')
    if seconds is not None and (type(seconds) not in (int, float) or not math.isfinite(seconds)):
      raise ValueError(f'seconds of a verdict are a number, got {seconds!r}')
    if values['verdict'] is not None and values['verdict'] not in [*SCORES]:
      raise ValueError(f'verdict is one of {[*SCORES]} or null, got {values["verdict"]!r}')
    if values['order'] not in ('ab', 'ba', APART):
      raise ValueError(f"order is 'ab', 'ba' or '' (shown apart), got {values['order']!r}")
    if values['system_a'] == values['system_b']:
      raise ValueError(f'system_a and system_b are both {values["system_a"]!r}')
    if values['by'] not in (PERSON, JUDGE, RULE):
      raise ValueError(f'by is {PERSON!r}, {JUDGE!r} or {RULE!r}, got {values["by"]!r}')
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**{k: v for k, v in values.items() if k in known})


def read(path: epath.PathLike) -> list[Verdict]:
  """The verdicts of a JSON-lines file; torn lines are left out with a warning.

  Raises:
    ValueError: a line is no verdict; it names the line, counted from 1.
  """
  found = []
  for line, values in json_lines.read(path):
    try:
      found.append(Verdict.from_dict(values))
    except ValueError as error:
      raise ValueError(
        f'{path}, line {line}: {error}. Give verdicts.jsonl of `aya-train judge`, or what people '
        'exported'
      ) from error
  return found


def without_repeats(verdicts: Iterable[Verdict]) -> list[Verdict]:
  """The last verdict of each person or judge on each pair in each order.

  An annotator exports more than once, and each export holds the earlier ones.
  """

  def judged(v: Verdict) -> tuple[object, ...]:
    # With its place: a data set may hold a prompt twice, and a small model answer it alike.
    return (v.item, v.task, v.index, v.id, v.by, v.annotator, v.order, v.protocol)

  return list({judged(v): v for v in verdicts}.values())
