"""`aya-train report preference`: one HTML page about what people and judges prefer."""

import dataclasses
import logging
from collections.abc import Sequence

import jinja2
from etils import epath

from aya_train import destinations
from aya_train.annotation import batches, exports, pair_verdicts, rated_answers
from aya_train.report import preference_tables
from aya_train.tasks import storage
from aya_train.tasks.languages import writing_direction

logger = logging.getLogger(__name__)
PAGE = 'preference.html'
_SHOWN = 12
_LONGEST = 800


@dataclasses.dataclass(frozen=True)
class Disagreement:
  """A pair on which people and a judge disagree.

  Attributes:
    language, lang, way: name, and values of the attributes `lang` and `dir`.
    prompt: its lines.
    answers: system, lines of its answer, and the direction of the whole.
    people, judge: whom each prefers, '' for a tie.
    comments: what people wrote.
  """

  language: str
  lang: str
  way: str
  prompt: Sequence[writing_direction.Line]
  answers: Sequence[tuple[str, Sequence[writing_direction.Line], str]]
  people: str
  judge: str
  comments: Sequence[str]


def write(
  paths: Sequence[epath.PathLike],
  output: epath.PathLike = PAGE,
  rating: rated_answers.Rating | None = None,
) -> epath.Path:
  """Writes the page.

  Args:
    paths: exports of annotation pages and of Label Studio, verdicts.jsonl of judges, or folders
      that hold the last; with `rating`, tables of answers that were rated one by one.
    output: file to write.
    rating: how tables say which answers are good.

  Raises:
    FileNotFoundError, ValueError: as `exports.read`; nothing was compared; the extra `judge` is
      missing.
    OSError: the file cannot be written.
  """
  destinations.check_file(output, '--output')
  found = exports.read(paths, rating)
  if not any(v.verdict is not None for v in found.verdicts):
    what = f'{len(found.ratings)} rows of data were rated, which `report data` shows'
    raise ValueError(
      f'{", ".join(map(str, paths))}: no judgement about two answers'
      + (f' ({what})' if found.ratings else '')
    )
  page = epath.Path(output)
  page.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(
    page, render(found.verdicts).replace('\0', '\ufffd').encode('utf-8', 'replace')
  )
  return page


def render(verdicts: Sequence[pair_verdicts.Verdict]) -> str:
  """The page of some verdicts, of which at least one says something."""
  order = preference_tables.systems(verdicts)
  by_group = preference_tables.groups(verdicts)
  people = by_group.get(preference_tables.PEOPLE, [])
  judges = {n: v for n, v in by_group.items() if n != preference_tables.PEOPLE}
  groups = [
    preference_tables.group(name, given, order)
    for name, given in by_group.items()
    if any(v.verdict is not None for v in given)
  ]
  agreed = [
    row
    for name, given in judges.items()
    for row in preference_tables.with_judge(people, given, name)
  ]
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.report', 'templates'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['language'] = _described
  return environment.get_template('preference.html.jinja').render(
    systems=order,
    groups=groups,
    agreed=agreed,
    disagreements=disagreements(people, [v for given in judges.values() for v in given]),
    apart=preference_tables.APART,
  )


def _described(code: str) -> str:
  return batches.described(code) or 'not stated'


def disagreements(
  people: Sequence[pair_verdicts.Verdict], judge: Sequence[pair_verdicts.Verdict]
) -> list[Disagreement]:
  """Some pairs of which people prefer one answer and the judge the other, languages in turn."""
  theirs = {v.item: v for v in judge if v.by == pair_verdicts.JUDGE and v.verdict is not None}
  comments: dict[tuple[str, ...], list[str]] = {}
  for v in people:
    comments.setdefault(v.item, []).extend([v.raw] if v.raw else [])
  by_language: dict[str, list[Disagreement]] = {}
  seen = set()
  for v in people:
    other = theirs.get(v.item)
    scores = [x.score_of(v.systems[0]) for x in (v, other) if x is not None]
    if None in scores or len({*scores}) < 2 or 0.5 in scores or v.item in seen:
      continue
    assert other is not None
    seen.add(v.item)
    language = preference_tables.language_of(v)
    by_language.setdefault(language, []).append(
      Disagreement(
        *(_described(language), writing_direction.html_language(language)),
        writing_direction.of_text(v.inputs, language),
        _lines(v.inputs, language),
        [
          (s, _lines(t := v.answer_of(s), language), writing_direction.of_text(t, language))
          for s in v.systems
        ],
        *(_preferred(v), _preferred(other)),
        comments[v.item],
      )
    )
  turns = max(map(len, by_language.values()), default=0)
  found = [rows[i] for i in range(turns) for rows in by_language.values() if i < len(rows)]
  return found[:_SHOWN]


def _preferred(verdict: pair_verdicts.Verdict) -> str:
  score = verdict.score_of(verdict.system_a)
  return {1.0: verdict.system_a, 0.0: verdict.system_b}.get(0.5 if score is None else score, '')


def _lines(text: str, language: str) -> list[writing_direction.Line]:
  shown = text if len(text) <= _LONGEST else f'{text[:_LONGEST]} …'
  return writing_direction.lines(shown or '(an empty answer)', language)
