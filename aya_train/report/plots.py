"""Curves of a run as SVG that takes its colours and letters from the page around it."""

import collections
import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import markupsafe
import matplotlib
from matplotlib import figure, ticker

from aya_train.report import run_record

# matplotlib knows no CSS: these stand for properties of the page until the SVG is written.
_CSS = {
  '#010203': 'currentColor',
  '#010204': 'var(--line)',
  '#010205': 'var(--after)',
  '#010206': 'var(--validation)',
  '#010207': 'var(--right)',
  '#010208': 'var(--fourth, #8e5bd0)',
  '#010209': 'var(--fifth, #c0392b)',
  '#01020a': 'var(--sixth, #7f8c8d)',
}
_INK, _GRID, *_SERIES = _CSS
_FEW_POINTS = 40


@dataclasses.dataclass(frozen=True)
class Line:
  """One curve: steps against values, and the ends of their intervals where they have such."""

  name: str
  steps: Sequence[int]
  values: Sequence[float]
  lows: Sequence[float] = ()
  highs: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
  """A plot with a title; `keys` are pairs of a curve's name and its CSS colour."""

  title: str
  keys: Sequence[tuple[str, str]]
  svg: markupsafe.Markup


def charts(run: run_record.Run) -> list[Chart]:
  """Losses, accuracy, learning rate, speed and filling over the steps of a run."""

  def line(name: str, kind: str, value: str, factor: float = 1) -> Line:
    records = [r for r in run.of_kind(kind) if value in r]
    return Line(name, [r['step'] for r in records], [factor * r[value] for r in records])

  accuracy = [
    line('training', 'train', 'accuracy', 100),
    line('validation', 'train_eval', 'accuracy', 100),
  ]
  if len(run.infer_tasks) == 1:
    kind = run_record.INFER_EVAL + run.infer_tasks[0]
    accuracy.append(line('exact match', kind, 'exact_match'))
  loss = [
    line('training', 'train', 'loss_per_target_token'),
    line('validation', 'train_eval', 'loss_per_target_token'),
  ]
  own = _others(run, line)
  of_pairs = any('margin' in record for record in run.of_kind('train'))
  named = 'Pairs ordered right' if of_pairs else 'Accuracy' if own else 'Token accuracy'
  plots = [
    ('Loss per target token', loss),
    *own,
    (f'{named}, %', accuracy),
    ('Learning rate', [line('', 'train', 'learning_rate')]),
    ('Tokens per second', [line('', 'train', 'tokens_per_second')]),
    ('Examples per second', [line('', 'train', 'examples_per_second')]),
    ('Tokens that are no padding, %', [line('', 'train', 'non_padding_fraction', 100)]),
  ]
  drawn = [(title, [x for x in lines if x.steps]) for title, lines in plots]
  return [chart(title, lines) for title, lines in drawn if lines]


# Figures of sequence to sequence, and those that say nothing over steps.
_KNOWN = {
  'step', 'kind', 'loss_per_target_token', 'accuracy', 'learning_rate', 'tokens_per_second',
  'examples_per_second', 'non_padding_fraction', 'z_loss', 'examples_per_step', 'examples',
  'not_finite',
}  # fmt: skip


def _others(run: run_record.Run, line: Callable[..., Line]) -> list[tuple[str, list[Line]]]:
  """The loss and the own figures of an objective that has no loss of target tokens."""
  train = run.of_kind('train')
  if not train or 'loss_per_target_token' in train[-1]:
    return []
  names = [name for name in train[-1] if name not in _KNOWN]
  return [
    (
      name.replace('_', ' ').capitalize(),
      [line('training', 'train', name), line('validation', 'train_eval', name)],
    )
    for name in names
  ]


def _style(title: str) -> dict[Any, Any]:
  settings: dict[Any, Any] = {
    'svg.fonttype': 'none',
    'svg.hashsalt': title,
    'font.family': 'sans-serif',
  }
  colours: dict[Any, Any] = {'text.color': _INK, 'axes.edgecolor': _GRID, 'axes.labelcolor': _INK}
  ticks: dict[Any, Any] = {
    'xtick.color': _INK,
    'ytick.color': _INK,
    'grid.color': _GRID,
    'font.size': 10,
  }
  return {**settings, **colours, **ticks}


def histogram(title: str, shares: Mapping[int, float], limit: int) -> Chart:
  """Draws lengths in bins that double, each with its share of the draws, and the limit.

  Args:
    title: of the chart.
    shares: length -> share of the draws, which sum to 1.
    limit: length that rows are cut to, marked if lengths come near it.
  """
  edges = [1]
  while edges[-1] <= max(shares):
    edges.append(2 * edges[-1])
  heights = [
    100 * sum(share for length, share in shares.items() if low <= length < high)
    for low, high in itertools.pairwise(edges)
  ]
  with matplotlib.rc_context(_style(title)):
    fig = figure.Figure(figsize=(4.6, 2.5), layout='constrained')
    ax = fig.subplots()
    ax.bar(edges[:-1], heights, [0.94 * x for x in edges[:-1]], align='edge', color=_SERIES[0])
    ax.set_xscale('log', base=2)
    ax.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    if limit <= edges[-1]:
      ax.axvline(limit, color=_SERIES[1], linewidth=1.5)
    ax.set_xlabel('tokens')
    ax.yaxis.set_major_locator(ticker.MaxNLocator(5))
    ax.grid(axis='y')
    ax.set_axisbelow(True)
    ax.spines[['top', 'right', 'left']].set_visible(False)
    ax.tick_params(length=0)
    return Chart(title, [], _inline(fig, title))


def chart(title: str, lines: Sequence[Line]) -> Chart:
  """Draws curves, from zero upwards where none is negative; short ones with their points."""
  with matplotlib.rc_context(_style(title)):
    fig = figure.Figure(figsize=(4.6, 2.5), layout='constrained')
    ax = fig.subplots()
    for line, colour in zip(lines, _SERIES, strict=False):
      marker = 'o' if len(line.steps) <= _FEW_POINTS else None
      if line.lows:
        ax.fill_between(line.steps, line.lows, line.highs, color=colour, alpha=0.18, linewidth=0)
      ax.plot(line.steps, line.values, color=colour, linewidth=2, marker=marker, markersize=4)
    ax.set_xlabel('step')
    if min(min(line.values) for line in lines) >= 0:
      ax.set_ylim(bottom=0)
    if title.endswith('%'):
      ax.set_ylim(top=100)
    if max(max(line.values) for line in lines) >= 1000:
      ax.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(5))
    ax.grid(axis='y')
    ax.spines[['top', 'right', 'left']].set_visible(False)
    ax.tick_params(length=0)
    keys = [(x.name, _CSS[c]) for x, c in zip(lines, _SERIES, strict=False) if len(lines) > 1]
    return Chart(title, keys, _inline(fig, title))


def scatter(title: str, points: Any, names: Sequence[str], most: int = 6) -> Chart:
  """Draws points, those of the most frequent names in a colour each.

  Args:
    title: of the chart.
    points: [N, 2].
    names: of each point.
    most: names that have a colour.
  """
  counts = collections.Counter(names)
  shown = [name for name, _ in counts.most_common(min(most, len(_SERIES)))]
  with matplotlib.rc_context(_style(title)):
    fig = figure.Figure(figsize=(4.6, 4.0), layout='constrained')
    ax = fig.subplots()
    for name, colour in ((None, _GRID), *zip(shown, _SERIES, strict=False)):
      chosen = [i for i, x in enumerate(names) if (x == name if name else x not in shown)]
      size = 14 if name else 6
      ax.scatter(points[chosen, 0], points[chosen, 1], s=size, color=colour, linewidths=0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    keys = [(name, _CSS[c]) for name, c in zip(shown, _SERIES, strict=False)]
    return Chart(title, keys, _inline(fig, title))


def _inline(fig: figure.Figure, title: str) -> markupsafe.Markup:
  """The figure as an <svg> element that scales with its box."""
  buffer = io.StringIO()
  fig.savefig(buffer, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :]
  for colour, css in _CSS.items():
    svg = svg.replace(colour, css)
  svg = re.sub(r' id="(?:figure|axes|patch|matplotlib|xtick|ytick|line2d|text)[._\d]*"', '', svg)
  svg = re.sub(r'font: [\d.]+px [^;"]*', 'font: 10px system-ui, sans-serif', svg)
  label = markupsafe.escape(title)
  head = f'<svg role="img" aria-label="{label}"'
  svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'{head} \1>', svg, count=1, flags=re.S)
  return markupsafe.Markup(re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S))
