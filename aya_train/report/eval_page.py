"""`aya-train report eval RUN...`: one HTML page about evaluations, beside what was published."""

from __future__ import annotations

import functools
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
from etils import epath

from aya_train.report import (
  eval_boards,
  eval_examples,
  eval_runs,
  eval_view,
  plots,
  published_figures,
  run_record,
)
from aya_train.tasks import eval_tasks, storage

logger = logging.getLogger(__name__)
PAGE = 'eval_report.html'
_TRAINING = ('Loss per target token', 'Token accuracy, %')
_USUAL = ('accuracy', 'exact_match')


def write(
  runs: Sequence[str],
  output: epath.PathLike = PAGE,
  *,
  json_output: epath.PathLike | None = None,
  markdown_output: epath.PathLike | None = None,
  beside: Sequence[str] = published_figures.BESIDE,
) -> epath.Path:
  """Writes the page, and the same figures for machines and for model cards.

  Args:
    runs: as `eval_runs.read_all` takes them.
    output: HTML file.
    json_output, markdown_output: further files, or None.
    beside: published models that are drawn beside ours.

  Raises:
    FileNotFoundError: a run has no results.json.
    ValueError: a results.json is damaged or of another program, or `beside` is not known.
  """
  boards = []
  for evaluation in eval_runs.read_all(runs):
    boards.append(eval_boards.board(evaluation))
    logger.info('%s: %d tasks', evaluation.name, len(boards[-1].tasks))
  view = eval_view.of(boards, beside)
  for evaluation, problems in view['problems'].items():
    for problem in problems[:5]:
      logger.warning('%s: %s', evaluation, problem)
  page = render(boards, view)
  _write(output, page)
  if json_output is not None:
    _write(json_output, json.dumps(view, ensure_ascii=False, allow_nan=False) + '\n')
  if markdown_output is not None:
    _write(markdown_output, markdown(view))
  return epath.Path(output)


# What a model may answer and no text file should hold, as Unicode's pictures of it.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in '\t\n\r'}


def _cell(text: str) -> str:
  """A text as a cell of a Markdown table."""
  return text.replace('|', '\\|').replace('<', '&lt;')


def _write(path: epath.PathLike, text: str) -> None:
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(path, text.translate(_CONTROLS).encode('utf-8', 'replace'))


def render(boards: Sequence[eval_boards.Board], view: Mapping[str, Any]) -> str:
  """The page of figures that `eval_view.of` made of the boards."""
  shown = eval_view.columns(boards)
  examples = eval_examples.pick(shown)
  return (
    _environment()
    .get_template('eval.html.jinja')
    .render(
      v=view,
      charts=[*_charts(view), *_training(boards)],
      heat=heat_maps(view),
      examples=examples,
      script_name=eval_view.script_name,
    )
  )


def markdown(view: Mapping[str, Any]) -> str:
  """Tables for a model card: means by benchmark beside the published rows, then by language."""
  return _environment().get_template('eval.md.jinja').render(v=view)


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.report', 'templates'),
    autoescape=jinja2.select_autoescape(['html.jinja']),
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['breakable'] = _breakable
  environment.filters['cell'] = _cell
  environment.filters['figure'] = _figure
  environment.filters['interval'] = _interval
  environment.filters['p'] = _p
  return environment


def _breakable(name: str) -> markupsafe.Markup:
  """A name that a line may end in after '_' and '.'."""
  return markupsafe.Markup(re.sub(r'([_.])(?=\w)', r'\1<wbr>', str(markupsafe.escape(name))))


def _figure(value: float | None, digits: int = 2) -> str:
  return '–' if value is None else f'{value:.{digits}f}'.replace('-', '−')


def _interval(figure: Mapping[str, float | None] | None) -> str:
  if figure is None or figure['low'] is None or figure['high'] is None:
    return ''
  return f'{figure["low"]:.1f} to {figure["high"]:.1f}'.replace('-', '−')


def _p(value: float | None) -> str:
  if value is None:
    return '–'
  return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _charts(view: Mapping[str, Any]) -> list[plots.Chart]:
  found = []
  for curve in view['curves']:
    lines = []
    for line in curve['lines']:
      known = all(value['low'] is not None for value in line['values'])
      ends = [[v[end] for v in line['values']] if known else [] for end in ('low', 'high')]
      values = [v['value'] for v in line['values']]
      lines.append(plots.Line(line['run'], line['steps'], values, *ends))
    languages = max(line['languages'] for line in curve['lines'])
    title = f'{curve["title"]}: {curve["metric"]}, mean of {languages}'
    found.append(plots.chart(title, lines))
  return found


def _training(boards: Sequence[eval_boards.Board]) -> list[plots.Chart]:
  """What the trainings measured whose checkpoints were evaluated, where they lie."""
  found = []
  abouts = {name: t.result.about for board in boards for name, t in board.tasks.items()}
  for folder in dict.fromkeys(
    run for board in boards for run in (_model_dir(board.evaluation),) if run is not None
  ):
    try:
      run = run_record.read(folder)
    except (OSError, ValueError) as error:  # the page may be made where the training is not
      logger.warning('%s: its training is not shown: %s', folder, error)
      continue
    charts = [chart for chart in plots.charts(run) if chart.title in _TRAINING]
    charts += [plots.chart(*titled) for titled in decoded(run, abouts)]
    found += [
      plots.Chart(f'{chart.title}; training {folder.name}', chart.keys, chart.svg)
      for chart in charts
    ]
  return found


def decoded(
  run: run_record.Run, abouts: Mapping[str, eval_tasks.EvalTask]
) -> list[tuple[str, list[plots.Line]]]:
  """Titles and curves of what a training evaluated by cadence: means over a benchmark's tasks.

  Args:
    run: with records of kind 'infer_eval/TASK'.
    abouts: what is known of tasks.
  """
  values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
  for task in run.infer_tasks:
    about = abouts.get(task) or eval_tasks.about(task)
    records = run.of_kind(run_record.INFER_EVAL + task)
    metric = next((m for m in (about.metric, *_USUAL) if m and m in records[-1]), None)
    if metric is not None:
      steps = {r['step']: r[metric] for r in records if metric in r}
      values.setdefault((about.benchmark, metric), {})[task] = steps
  found = []
  for (benchmark, metric), tasks in sorted(values.items()):
    shared = sorted(set.intersection(*({*steps} for steps in tasks.values())))
    if len(shared) > 1:
      means = [sum(steps[s] for steps in tasks.values()) / len(tasks) for s in shared]
      title = f'{benchmark}: {metric} while training, mean of {len(tasks)} tasks'
      found.append((title, [plots.Line('', shared, means)]))
  return found


def _model_dir(evaluation: eval_runs.Evaluation) -> epath.Path | None:
  for path in (evaluation.checkpoint, str(evaluation.folder)):
    if path and (found := run_record.find(path)) is not None:
      return found
  return None


def heat_maps(view: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Of each evaluation: languages against benchmarks, shaded from the lowest to the highest.

  Benchmarks have scales of their own, chance level where it is known at the pale end.
  """
  found = []
  for place, name in enumerate(view['columns']):
    columns = []
    for group in view['groups']:
      values = {
        row['name']: row['values'][place]['median']['value']
        for row in group['languages']
        if row['language'] and row['values'][place] is not None
      }
      if not values:
        continue
      chances = [row['chance'] for row in group['languages'] if row['chance'] is not None]
      low = min([*values.values(), *chances])
      high = max(values.values())
      if group['lower_is_better']:
        low, high = high, low
      columns.append(
        {
          'title': group['title'],
          'anchor': group['anchor'],
          'cells': {k: (v, shade(v, low, high)) for k, v in values.items()},
        }
      )
    rows = sorted({row for column in columns for row in column['cells']})
    if rows:
      found.append({'evaluation': name, 'columns': columns, 'rows': rows})
  return found


def shade(value: float, low: float, high: float) -> int:
  """Percent of the colour, 0 at `low` and 70 at `high`, which may be the smaller one."""
  if math.isclose(low, high):
    return 35
  return round(70 * min(1.0, max(0.0, (value - low) / (high - low))))
