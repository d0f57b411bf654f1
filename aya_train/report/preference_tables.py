"""Judgements of people and of judges laid out for the page about preference."""

import collections
import dataclasses
import itertools
import statistics
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from aya_train.annotation import batches, pair_verdicts
from aya_train.report import preference_figures as figures
from aya_train.tasks.metrics import comparisons, intervals

PEOPLE, RULES = 'People', 'Rules'
STRONG = 3.0
"""Weight of 'A>>B' against 'A>B' where strong verdicts are weighed, as in Arena-Hard."""

APART = 10.0
"""Points between raw and length-controlled win rate from which on the page warns."""

_SMALL = 100
Verdicts = Sequence[pair_verdicts.Verdict]


@dataclasses.dataclass(frozen=True)
class PairRow:
  """One system against another, as one group of raters sees them.

  Attributes:
    system, other: whose rate it is, and against whom.
    language: ISO 639-3, or '' for all languages.
    won: the win rate; of a language its interval holds for all languages of the table together.
    controlled: the win rate at equal lengths.
    weighted: the win rate with strong verdicts counted three times, None where there are none.
    both_bad: judgements that call both answers bad; they are among the ties.
    p_adjusted: after Holm, over all rows of a table.
    lengths: mean characters of the answers of both.
  """

  system: str
  other: str
  language: str
  won: figures.WinRate
  controlled: figures.LengthControlled
  weighted: figures.WinRate | None
  both_bad: int
  p_adjusted: float
  lengths: tuple[float, float]

  @property
  def apart(self) -> bool:
    """Whether raw and length-controlled rate differ by more than `APART` points."""
    raw, controlled = self.won.rate, self.controlled.rate
    return raw is not None and controlled is not None and abs(raw - controlled) > APART

  @property
  def is_small(self) -> bool:
    return self.won.items < _SMALL


@dataclasses.dataclass(frozen=True)
class AnnotatorRow:
  """One annotator: judgements, percent of ties, preference for the first place, seconds."""

  name: str
  judgements: int
  tie_share: float
  first: figures.Share | None
  seconds: float | None


@dataclasses.dataclass(frozen=True)
class AgreementRow:
  """How far two annotators, or people and a judge, agree; in a language, or '' for all."""

  first: str
  second: str
  language: str
  found: figures.Agreement


@dataclasses.dataclass(frozen=True)
class Group:
  """All that one group of raters says.

  Attributes:
    name: PEOPLE, 'Judge MODEL' or RULES.
    pairs: a row for each two systems.
    languages: a row for each two systems and language, where there are several languages.
    strengths: Bradley-Terry; [] for fewer than two systems.
    annotators: a row for each person; of a judge one.
    agreements: of each two annotators.
    alpha: Krippendorff's, of all annotators.
    shared: items that more than one annotator judged.
    places: bias by position, and consistency.
    by_rule: judgements that a rule made without asking.
    problems: why there is no verdict -> how often.
    flags: what was noticed -> how often.
  """

  name: str
  pairs: Sequence[PairRow]
  languages: Sequence[PairRow]
  strengths: Sequence[figures.Strength]
  annotators: Sequence[AnnotatorRow]
  agreements: Sequence[AgreementRow]
  alpha: float | None
  shared: int
  places: figures.Positions
  by_rule: int
  problems: Mapping[str, int]
  flags: Mapping[str, int]


def systems(verdicts: Verdicts) -> list[str]:
  """Names of all systems, those that are preferred more first."""
  scores: dict[str, list[float]] = collections.defaultdict(list)
  for v in verdicts:
    for system in v.systems:
      if (score := v.score_of(system)) is not None:
        scores[system].append(score)
      else:
        scores[system] += []
  return sorted(scores, key=lambda s: (-statistics.fmean(scores[s] or [0.5]), s))


def groups(verdicts: Verdicts) -> dict[str, list[pair_verdicts.Verdict]]:
  """Verdicts by who gave them; what rules decided counts for each judge of the same protocol."""
  found: dict[str, list[pair_verdicts.Verdict]] = {}
  protocols: dict[str, set[str]] = collections.defaultdict(set)
  for v in verdicts:
    if v.by != pair_verdicts.RULE:
      name = PEOPLE if v.by == pair_verdicts.PERSON else f'Judge {v.annotator or "without a name"}'
      found.setdefault(name, []).append(v)
      protocols[name].add(v.protocol)
  for v in verdicts:
    if v.by == pair_verdicts.RULE:
      judges = [n for n in found if n != PEOPLE and v.protocol in protocols[n]]
      for name in judges or [RULES]:
        found.setdefault(name, []).append(v)
  return dict(sorted(found.items(), key=lambda pair: (pair[0] != PEOPLE, pair[0])))


def language_of(verdict: pair_verdicts.Verdict) -> str:
  return batches.language_of(verdict.language) if verdict.language else ''


def group(name: str, verdicts: Verdicts, order: Sequence[str]) -> Group:
  """Every figure of one group.

  Args:
    name: of the group.
    verdicts: of its raters.
    order: systems; rates are of the earlier one.

  Raises:
    ValueError: the extra `judge` is missing.
  """
  judged = [v for v in verdicts if v.verdict is not None]
  asked = [v for v in judged if v.by != pair_verdicts.RULE]
  names = [s for s in order if any(s in v.systems for v in judged)]
  together = [
    (a, b, '', [v for v in judged if {*v.systems} == {a, b}])
    for a, b in itertools.combinations(names, 2)
  ]
  together = [part for part in together if part[3]]
  apart = [
    (a, b, language, [v for v in of_pair if language_of(v) == language])
    for a, b, _, of_pair in together
    for language in sorted({language_of(v) for v in judged})
  ]
  apart = [part for part in apart if part[3]]
  given = ratings(asked)
  return Group(
    name=name,
    pairs=_corrected([pair_row(*part) for part in together]),
    languages=_by_language(apart),
    strengths=figures.bradley_terry(_contests(judged)) if len(names) > 1 else [],
    annotators=_annotators(asked),
    agreements=_agreements(given),
    alpha=figures.krippendorff_alpha(given),
    shared=sum(len(found) > 1 for found in given.values()),
    places=_positions(asked),
    by_rule=len(judged) - len(asked),
    problems=_counted(v.problem for v in verdicts if v.problem),
    flags=_counted(f for v in verdicts for f in v.flags if f != pair_verdicts.BOTH_BAD),
  )


def _counted(found: Iterator[str]) -> dict[str, int]:
  return dict(sorted(collections.Counter(found).items()))


def pair_row(
  system: str,
  other: str,
  language: str,
  verdicts: Verdicts,
  level: float = figures.LEVEL,
) -> PairRow:
  """The figures of two systems.

  Args:
    system, other: whose rate, against whom.
    language: that the verdicts are in, '' for all.
    verdicts: about these two, each with a verdict.
    level: of the intervals.
  """
  scores = [float(v.score_of(system) or 0) for v in verdicts]
  items = [v.item for v in verdicts]
  lengths = np.array([[len(v.answer_of(s)) for s in (system, other)] for v in verdicts])
  weights = [STRONG if '>>' in (v.verdict or '') else 1.0 for v in verdicts]
  won = figures.win_rate(scores, items, level=level)
  return PairRow(
    *(system, other, language, won),
    figures.length_controlled(scores, lengths[:, 0] - lengths[:, 1], items, level=level),
    figures.win_rate(scores, items, weights, level) if max(weights) > 1 else None,
    sum(pair_verdicts.BOTH_BAD in v.flags for v in verdicts),
    won.p_value,
    (float(lengths[:, 0].mean()), float(lengths[:, 1].mean())),
  )


def _corrected(rows: Sequence[PairRow]) -> list[PairRow]:
  adjusted = comparisons.holm([row.won.p_value for row in rows]) if rows else []
  return [dataclasses.replace(row, p_adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def _by_language(parts: Sequence[tuple[str, str, str, Verdicts]]) -> list[PairRow]:
  if len({language for _, _, language, _ in parts}) < 2:
    return []
  level = intervals.simultaneous_level(figures.LEVEL, len(parts))
  return _corrected([pair_row(*part, level=level) for part in parts])


def _contests(verdicts: Verdicts) -> list[figures.Contest]:
  return [
    figures.Contest(v.system_a, v.system_b, pair_verdicts.SCORES[v.verdict], v.item)
    for v in verdicts
    if v.verdict is not None
  ]


def ratings(verdicts: Verdicts) -> dict[Hashable, dict[str, int]]:
  """Item -> annotator -> 1 if the first system by name won, -1 if the other, 0 for a tie.

  Who judged both orders and preferred another system in each has said that they tie.
  """
  scores: dict[Hashable, dict[str, list[float]]] = {}
  for v in verdicts:
    if (score := v.score_of(v.systems[0])) is not None:
      scores.setdefault(v.item, {}).setdefault(v.annotator, []).append(score - 0.5)
  return {
    item: {name: int(np.sign(sum(given))) for name, given in by.items()}
    for item, by in scores.items()
  }


def _agreements(given: Mapping[Hashable, Mapping[str, int]]) -> list[AgreementRow]:
  found = []
  for (a, b), pairs in sorted(figures.pairs_of_annotators(given).items()):
    if (agreed := figures.agreement(pairs)) is not None:
      found.append(AgreementRow(a, b, '', agreed))
  return found


def with_judge(people: Verdicts, judge: Verdicts, name: str) -> list[AgreementRow]:
  """People against a judge, in all languages and in each; what rules decided is left out."""
  asked = [v for v in judge if v.by == pair_verdicts.JUDGE]
  theirs = {item: next(iter(by.values())) for item, by in ratings(asked).items()}
  languages: dict[Hashable, str] = {v.item: language_of(v) for v in people}
  pairs: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
  for item, by in ratings(people).items():
    if item in theirs:
      for value in by.values():
        pairs[''].append((value, theirs[item]))
        pairs[languages[item]].append((value, theirs[item]))
  rows = [(language, figures.agreement(pairs[language])) for language in sorted(pairs)]
  found = [AgreementRow(PEOPLE, name, language, agreed) for language, agreed in rows if agreed]
  return found if len(found) > 2 else found[:1]


def _annotators(verdicts: Verdicts) -> list[AnnotatorRow]:
  by: dict[str, list[pair_verdicts.Verdict]] = {}
  for v in verdicts:
    by.setdefault(v.annotator or 'without a name', []).append(v)
  found = []
  for name, given in sorted(by.items()):
    ties = sum(v.score_of(v.system_a) == 0.5 for v in given)
    decided = [v.first_won for v in given if v.first_won in (0.0, 1.0)]
    seconds = [v.seconds for v in given if v.seconds is not None]
    found.append(
      AnnotatorRow(
        *(name, len(given), 100 * ties / len(given)),
        figures.share(sum(s == 1 for s in decided), len(decided)),
        statistics.median(seconds) if seconds else None,
      )
    )
  return found


def _positions(verdicts: Verdicts) -> figures.Positions:
  firsts: dict[tuple[Hashable, str], dict[str, float]] = {}
  for v in verdicts:
    if v.first_won is not None:
      firsts.setdefault((v.item, v.annotator), {})[v.order] = v.first_won
  return figures.positions(
    [v.first_won for v in verdicts if v.first_won is not None],
    [(by['ab'], by['ba']) for by in firsts.values() if len(by) == 2],
  )
