"""What people who rated data found, by source and by language."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import editdistance

from aya_train.annotation import exports
from aya_train.report import preference_figures

SMALLEST_EDIT = 5
"""Characters from which on an edit counts in the Aya Dataset (Singh et al. 2024)."""


@dataclasses.dataclass(frozen=True)
class Rated:
  """Ratings of one source or language.

  Attributes:
    name: of it.
    rows: rated, skipped ones included.
    skipped: neither approved nor edited.
    approved: share of the others that nobody needed to edit; None if all were skipped.
    edited: how many were.
    distance: mean edit distance (Levenshtein) of prompt and answer together over what was edited,
      in characters; None where nothing was.
    share: mean of the same as percent of the longer text.
    small: edits of fewer than `SMALLEST_EDIT` characters.
  """

  name: str
  rows: int
  skipped: int
  approved: preference_figures.Share | None
  edited: int
  distance: float | None
  share: float | None
  small: int


def by(ratings: Sequence[exports.Rating], key: Callable[[exports.Rating], str]) -> list[Rated]:
  """Figures by whatever `key` gives, the most rated first."""
  groups: dict[str, list[exports.Rating]] = {}
  for rating in ratings:
    groups.setdefault(key(rating), []).append(rating)
  found = [_rated(name, group) for name, group in groups.items()]
  return sorted(found, key=lambda r: (-r.rows, r.name))


def distance(before: str, after: str) -> int:
  """Levenshtein's distance, in characters.

  What both begin and end with is left out before: it changes nothing, and the time that the rest
  takes grows with the square of its length.
  """
  start = _same(before, after)
  before, after = before[start:], after[start:]
  end = _same(before[::-1], after[::-1])
  return editdistance.eval(before[: len(before) - end], after[: len(after) - end])


def _same(one: str, two: str) -> int:
  """How many characters two texts begin with alike."""
  pairs = enumerate(zip(one, two, strict=False))
  return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def _rated(name: str, ratings: Sequence[exports.Rating]) -> Rated:
  edited = [r for r in ratings if r.decision == exports.EDITED]
  approved = sum(r.decision == exports.APPROVED for r in ratings)
  distances = [
    distance(r.prompt, r.edited_prompt) + distance(r.answer, r.edited_answer) for r in edited
  ]
  longest = [
    max(len(r.prompt), len(r.edited_prompt)) + max(len(r.answer), len(r.edited_answer))
    for r in edited
  ]
  shares = [100 * d / n for d, n in zip(distances, longest, strict=True) if n]
  return Rated(
    name=name,
    rows=len(ratings),
    skipped=len(ratings) - approved - len(edited),
    approved=preference_figures.share(approved, approved + len(edited)),
    edited=len(edited),
    distance=statistics.fmean(distances) if distances else None,
    share=statistics.fmean(shares) if shares else None,
    small=sum(d < SMALLEST_EDIT for d in distances),
  )
