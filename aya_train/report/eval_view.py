"""All that a page about evaluations shows, as plain values: what --json writes."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import babel
import numpy as np

from aya_train.report import (
  eval_boards,
  eval_figures,
  eval_tables,
  published_figures,
)
from aya_train.tasks import eval_tasks
from aya_train.tasks.languages import aya101, writing_direction

COLUMNS = 6
"""Most evaluations side by side."""

_LEVELS = (*eval_figures.LEVELS.values(), eval_figures.OTHER_LEVEL)
_PAPER_BESIDE = ('Aya', 'mT0x')
_PROMPTS = 5
_ELSE = ('preference', 'toxicity', 'winomt')  # of the paper, that is no table of a benchmark
_INTERVALS = (eval_tasks.LOW, eval_tasks.HIGH)


def columns(boards: eval_tables.Boards) -> list[eval_boards.Board]:
  """What is shown side by side: all, or of each run the newest and as many others as fit."""
  if len(boards) <= COLUMNS:
    return list(boards)
  runs: dict[str, list[int]] = collections.defaultdict(list)
  for place, board in enumerate(boards):
    runs[board.evaluation.run].append(place)
  chosen = {places[-1] for places in itertools.islice(runs.values(), COLUMNS)}
  room = COLUMNS - len(chosen)
  rest = [place for place in range(len(boards)) if place not in chosen]
  if len(runs) == 1 and room > 0:  # steps of one run, the first one and at even distances
    chosen |= {rest[round(k * (len(rest) - 1) / max(1, room - 1))] for k in range(room)}
  return [boards[place] for place in sorted(chosen)]


def of(
  boards: eval_tables.Boards, beside: Sequence[str] = published_figures.BESIDE
) -> dict[str, Any]:
  """Figures of evaluations, JSON-ready.

  Args:
    boards: all of them; those of `columns` are laid side by side.
    beside: models of the published table to draw beside them.

  Raises:
    ValueError: a model of `beside` is not published.
  """
  if unknown := [model for model in beside if model not in published_figures.models()]:
    raise ValueError(
      f'--beside: nobody published {unknown}; known are {", ".join(published_figures.models())}'
    )
  shown = columns(boards)
  groups = [_group(group, shown, beside) for group in eval_tables.groups(shown)]
  return {
    'runs': [_run(board) for board in boards],
    'columns': [board.evaluation.name for board in shown],
    # Of each run: a table with a row an evaluation has these alone.
    'newest': [*{board.evaluation.run: board.evaluation.name for board in shown}.values()],
    'short': [board.evaluation.short for board in shown],
    'beside': list(beside),
    'problems': {b.evaluation.name: list(b.problems) for b in boards if b.problems},
    'groups': groups,
    'pairs': eval_tables.pairs(shown),
    'lengths': eval_tables.lengths(shown),
    'comparisons': eval_tables.compared(shown),
    'curves': eval_tables.curves(boards),
    'tasks': eval_tables.tasks(shown),
    'published_lengths': [
      _paper(p) for p in published_figures.paper_rows('preference', '', 'characters')
    ],
    'paper_else': [_paper(p) for name in _ELSE for p in published_figures.paper_rows(name)],
    'contradictions': [*published_figures.CONTRADICTIONS.values()],
    'sources': {
      file: published_figures.source(file)
      for file in (published_figures.XMTF, published_figures.AYA)
    },
  }


def _paper(row: published_figures.PaperFigure) -> dict[str, str]:
  return dataclasses.asdict(row)


def _run(board: eval_boards.Board) -> dict[str, Any]:
  e = board.evaluation
  return {
    'name': e.name,
    'run': e.run,
    'folder': str(e.folder),
    'checkpoint': e.checkpoint,
    'step': e.step,
    'model': e.model,
    'settings': dict(e.settings),
    'tasks': len(e.results),
    'examples': sum(result.num_examples for result in e.results.values()),
  }


# A benchmark --------------------------------------------------------------------------------------


def _group(
  group: eval_figures.Group, boards: eval_tables.Boards, beside: Sequence[str]
) -> dict[str, Any]:
  every = [board.groups.get(group, {}) for board in boards]
  varieties = sorted({v for cells in every for v in cells}, key=lambda v: _cell_of(every, v).name)
  known = published_figures.known_as(group.benchmark)
  table = {} if group.harness or group.subset else published_figures.languages_of(known)
  if group.metric != 'accuracy':
    table = {}
  here = [v for v in varieties if v in table]
  paper = [] if group.harness else published_figures.paper_rows(known, group.subset, group.metric)
  languages_here = [v for v in varieties if _cell_of(every, v).language]
  paper_languages = published_figures.PAPER_LANGUAGES.get(known) if paper else None
  if len(languages_here) == paper_languages:
    paper_languages = None
  notes = _notes(group, known, every, table, here, paper_languages)
  languages = [_language(v, every, table) for v in varieties]
  return {
    'title': group.title,
    'anchor': group.anchor,
    'benchmark': group.benchmark,
    'subset': group.subset,
    'protocol': 'harness' if group.harness else '',
    'metric': group.metric,
    'lower_is_better': eval_figures.lower_is_better(group.metric),
    'means': [
      {
        s: eval_tables.figure(eval_figures.mean([*cells.values()], s))
        for s in ('median', 'maximum')
      }
      if cells
      else None
      for cells in every
    ],
    'languages': languages,
    'scale': _scale(languages, group.metric),
    # Language -> evaluation, and which evaluations have all that is published.
    'cells': {
      code: [
        next((r['values'][i] for r in languages if r['variety'] == code), None)
        for i in range(len(every))
      ]
      for code in sorted(table)
    },
    'complete': [bool(table) and {*table} <= {*cells} for cells in every],
    'published': _published(known, table, here) if table else [],
    'beside': {m: _mean(known, m, here or table) for m in beside} if table else {},
    'paper': [_paper(p) for p in paper],
    'paper_languages': paper_languages,
    'paper_beside': {p.model: p.value for p in paper if p.model in _PAPER_BESIDE},
    'others': _others(group, known, every),
    'parity': [_parity(cells, group.metric) for cells in every],
    'levels': _by_kind(every, lambda cell: cell.level, _LEVELS),
    'scripts': _by_kind(every, lambda cell: script_name(cell.script)),
    'notes': notes,
  }


def _cell_of(every: Sequence[eval_figures.Cells], variety: str) -> eval_figures.Cell:
  return next(cells[variety] for cells in every if variety in cells)


def _language(
  variety: str,
  every: Sequence[eval_figures.Cells],
  table: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
  first = _cell_of(every, variety)
  return {
    'variety': variety,
    'language': first.language,
    'name': first.name,
    'tag': writing_direction.html_language(first.language, first.script),
    'script': script_name(first.script),
    'level': first.level,
    'chance': first.chance,
    'values': [
      None
      if (cell := cells.get(variety)) is None
      else {
        'median': eval_tables.figure(cell.median),
        'maximum': eval_tables.figure(cell.maximum),
        'examples': cell.examples,
        'prompts': {t.result.about.prompt or '-': eval_tables.figure(t.figure) for t in cell.tasks},
      }
      for cells in every
    ],
    'published': dict(table.get(variety, {})),
  }


def _scale(languages: Sequence[Mapping[str, Any]], metric: str) -> float:
  """What a bar over the whole width stands for."""
  values = [
    end
    for row in languages
    for value in row['values']
    if value is not None
    for end in (value['median']['value'], value['median']['high'])
    if end is not None
  ]
  values += [float(x) for row in languages for x in row['published'].values()]
  highest = max(values, default=0.0)
  if highest <= 100 and (highest > 50 or metric.startswith('accuracy')):
    return 100.0
  return 1.05 * highest if highest > 0 else 1.0


def _mean(benchmark: str, model: str, languages: Any, statistic: Any = 'median') -> str | None:
  value = published_figures.mean_of(benchmark, model, list(languages), statistic)
  return None if value is None else f'{value:.2f}'


def _published(
  benchmark: str, table: Mapping[str, Mapping[str, str]], here: Sequence[str]
) -> list[dict[str, Any]]:
  """Models of the published table: means over all languages and over ours, and each language."""
  maxima = published_figures.languages_of(benchmark, 'max')
  return [
    {
      'model': model,
      'mean': _mean(benchmark, model, table),
      'mean_here': _mean(benchmark, model, here) if here else None,
      'maximum': _mean(benchmark, model, table, 'max'),
      'maximum_here': _mean(benchmark, model, here, 'max') if here else None,
      'median': {code: table[code].get(model) for code in sorted(table)},
      'max': {code: maxima.get(code, {}).get(model) for code in sorted(table)},
    }
    for model in published_figures.models()
    if any(model in values for values in table.values())
  ]


def _notes(
  group: eval_figures.Group,
  known: str,
  every: Sequence[eval_figures.Cells],
  table: Mapping[str, Any],
  here: Sequence[str],
  paper_languages: int | None,
) -> list[str]:
  """What a reader must know before comparing with what was published."""
  notes = []
  if group.harness and (published_figures.languages_of(known)):
    notes.append(
      'Scored as lm-evaluation-harness does; the published figures were scored as T0 was, so none '
      'stands beside it.'
    )
  if table and here and len(here) < len(table):
    notes.append(
      f'{len(here)} of the {len(table)} published languages are here: means of the published rows '
      f"are over these where they are beside ours; the Aya paper's are over all {len(table)}."
    )
  if table:
    notes += _unlike(known, every, here)
    notes.append(published_figures.MT0_TWICE)
  elif not published_figures.paper_rows(known) and not published_figures.languages_of(known):
    notes.append('Nobody published this benchmark in the tables that this package has.')
  elif (
    not group.harness
    and (rows := published_figures.paper_rows(known))
    and not any(row.metric.casefold() == group.metric.casefold() for row in rows)
  ):
    names = sorted({row.metric for row in rows})
    notes.append(f'The Aya paper published {", ".join(names)} of it, not {group.metric}.')
  if paper_languages is not None and not table:
    notes.append(f'The means of the Aya paper are over {paper_languages} languages.')
  if known in published_figures.CONTRADICTIONS:
    notes.append(published_figures.CONTRADICTIONS[known])
  written = collections.Counter(
    note for cells in every for c in cells.values() for t in c.tasks for note in t.result.notes
  )
  notes += [n if k == 1 else f'{n} ({k} tasks)' for n, k in written.most_common(20)]
  if not any(cell.median.low is not None for cells in every for cell in cells.values()):
    notes.append('The evaluation gave no intervals.')
  return notes


def _unlike(known: str, every: Sequence[eval_figures.Cells], here: Sequence[str]) -> list[str]:
  """Where tasks are not those whose figures were published."""
  notes = []
  cells = [cell for cells in every for v, cell in cells.items() if v in here]
  rows = published_figures.ROWS.get(known, {})
  counts = {
    (cell.name, cell.examples, rows[cell.language])
    for cell in cells
    if rows.get(cell.language, cell.examples) != cell.examples
  }
  if counts:
    told = [f'{n} {found:,} of {want:,}' for n, found, want in sorted(counts)]
    more = f' and {len(told) - 8} more' if told[8:] else ''
    notes.append(f'Other rows than the published ones: {", ".join(told[:8])}{more}.')
  splits = {t.result.about.split for cell in cells for t in cell.tasks}
  if (split := published_figures.split_of(known)) is not None and splits - {split}:
    notes.append(f'Published on the split {split!r}, measured on {", ".join(sorted(splits))}.')
  if any(len(cell.tasks) != _PROMPTS for cell in cells if cell.tasks):
    found = sorted({len(cell.tasks) for cell in cells if cell.tasks})
    notes.append(f'Published over {_PROMPTS} prompts, measured with {", ".join(map(str, found))}.')
  return notes


def _others(
  group: eval_figures.Group, known: str, every: Sequence[eval_figures.Cells]
) -> list[dict[str, Any]]:
  """Means over the tasks of every further figure, beside the paper's where it has them."""
  found: dict[str, list[float | None]] = {}
  names = {
    name
    for cells in every
    for cell in cells.values()
    for task in cell.tasks
    for name in task.result.metrics
    if not name.endswith(_INTERVALS) and name != group.metric
  }
  for name in sorted(names):
    found[name] = []
    for cells in every:
      values = [
        task.result.metrics[name]
        for cell in cells.values()
        for task in cell.tasks
        if name in task.result.metrics
      ]
      found[name].append(float(np.mean(values)) if values else None)
  return [
    {
      'metric': name,
      'values': values,
      'paper': {p.model: p.value for p in published_figures.paper_rows(known, group.subset, name)},
    }
    for name, values in found.items()
  ]


def _parity(cells: eval_figures.Cells, metric: str) -> dict[str, Any] | None:
  found = eval_figures.parity(cells, metric) if cells else None
  if found is None:
    return None
  return {
    'average': eval_tables.figure(found.average),
    'best': {'name': found.best.name, **(eval_tables.figure(found.best.median) or {})},
    'worst': {'name': found.worst.name, **(eval_tables.figure(found.worst.median) or {})},
    'gap': eval_tables.figure(found.gap),
    'languages': found.languages,
  }


def _by_kind(
  every: Sequence[eval_figures.Cells],
  key: Callable[[eval_figures.Cell], str],
  order: Sequence[str] = (),
) -> dict[str, list[dict[str, Any] | None]]:
  """Kind -> mean over its languages of each evaluation."""
  means = [eval_figures.means_by(cells, key) for cells in every]
  kinds = {kind for found in means for kind in found}
  names = [k for k in order if k in kinds] + sorted(kinds - {*order})
  return {
    kind: [
      {**(eval_tables.figure(found[kind][0]) or {}), 'languages': found[kind][1]}
      if kind in found
      else None
      for found in means
    ]
    for kind in names
  }


_SCRIPTS = {language.script_code: language.script for language in aya101.LANGUAGES} | {
  'Hans': 'Simplified Han',
  'Hant': 'Traditional Han',
  'Latn': 'Latin',
  'Arab': 'Arabic',
  'Cyrl': 'Cyrillic',
}


def script_name(code: str) -> str:
  """'Arabic' for 'Arab'; the code where nobody has a name."""
  if not code:
    return 'not stated'
  return _SCRIPTS.get(code) or babel.Locale('en').scripts.get(code, code)
