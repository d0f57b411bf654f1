"""Tables of a page about evaluations that go over several benchmarks, as plain values."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from aya_train.report import eval_boards, eval_comparison, eval_figures
from aya_train.tasks import eval_tasks

Boards = Sequence[eval_boards.Board]


def figure(found: eval_figures.Figure | None) -> dict[str, float | None] | None:
  """A figure without its draws."""
  if found is None:
    return None
  return {'value': found.value, 'low': found.low, 'high': found.high}


def groups(boards: Boards) -> list[eval_figures.Group]:
  """All of them, sorted."""
  return sorted({group for board in boards for group in board.groups})


def pairs(boards: Boards) -> list[dict[str, Any]]:
  """Two subsets of a benchmark, of each evaluation: means and languages."""
  found = []
  for board in boards:
    for pair in eval_figures.pairs(board.groups):
      found.append(
        {
          'evaluation': board.evaluation.name,
          'benchmark': pair.benchmark,
          'names': [name.replace('_', ' ') for name in pair.names],
          'means': [figure(pair.first), figure(pair.second), figure(pair.gap)],
          'languages': [
            {
              'name': first.name,
              'values': [figure(first.median), figure(second.median), figure(gap)],
              'examples': [first.examples, second.examples],
            }
            for first, second, gap in pair.languages.values()
          ],
        }
      )
  return found


def lengths(boards: Boards) -> list[dict[str, Any]]:
  """Characters of free answers by benchmark and evaluation, and of their references."""
  found = []
  for board in boards:
    gathered: dict[str, list[eval_figures.TaskFigure]] = collections.defaultdict(list)
    for task in board.tasks.values():
      if task.result.about.protocol == eval_tasks.GENERATED and task.answers is not None:
        about = task.result.about
        gathered[eval_figures.Group(about.benchmark, eval_boards.subset_of(about)).title].append(
          task
        )
    for title, tasks in sorted(gathered.items()):
      answers = [task.answers for task in tasks if task.answers is not None]
      lengths = np.concatenate([a.characters for a in answers])
      wanted = np.concatenate([a.reference_characters for a in answers])
      draws = eval_figures.draws_of(lengths[None].astype(np.float64))[:, 0]
      found.append(
        {
          'benchmark': title,
          'evaluation': board.evaluation.name,
          'answers': len(lengths),
          'mean': figure(eval_figures.of_draws(float(lengths.mean()), draws)),
          'median': float(np.median(lengths)),
          'longest': int(lengths.max()),
          'empty': 100 * float(np.mean(lengths == 0)),
          'references': float(wanted[wanted >= 0].mean()) if (wanted >= 0).any() else None,
        }
      )
  return sorted(found, key=lambda row: row['benchmark'])


def compared(boards: Boards) -> list[dict[str, Any]]:
  """Each later evaluation with the first."""
  found = []
  for board in boards[1:]:
    c = eval_comparison.compare(boards[0], board)
    found.append(
      {
        'before': c.before,
        'after': c.after,
        'better': c.count('better'),
        'worse': c.count('worse'),
        'tested': sum(d.p_value is not None for d in c.languages.values()),
        'means': [
          {'title': g.title, 'metric': g.metric, 'languages': n, **_difference(d)}
          for g, (d, n) in c.means.items()
        ],
        'languages': [
          {
            'title': g.title,
            'metric': g.metric,
            'variety': v,
            'name': boards[0].groups[g][v].name,
            **_difference(d),
          }
          for (g, v), d in c.languages.items()
        ],
        'tasks': [{'task': name, **_difference(d)} for name, d in c.tasks.items()],
        'alone': list(c.alone),
      }
    )
  return found


def _difference(d: eval_comparison.Difference) -> dict[str, Any]:
  return {
    'before': figure(d.before),
    'after': figure(d.after),
    'change': figure(d.change),
    'p_value': d.p_value,
    'p_holm': d.p_adjusted,
    'p_fdr': d.p_fdr,
    'method': d.method,
    'examples': d.examples,
    'verdict': d.verdict,
  }


def tasks(boards: Boards) -> list[dict[str, Any]]:
  """Every task with what every evaluation found."""
  names = sorted({name for board in boards for name in board.tasks})
  found = []
  for name in names:
    tasks = [board.tasks.get(name) for board in boards]
    first = next(task for task in tasks if task is not None)
    about = first.result.about
    found.append(
      {
        'task': name,
        'benchmark': about.benchmark,
        'language': about.language,
        'prompt': about.prompt,
        'protocol': about.protocol,
        'split': about.split,
        'version': about.version,
        'metric': first.metric,
        'examples': [None if t is None else t.result.num_examples for t in tasks],
        'values': [None if t is None else figure(t.figure) for t in tasks],
        'metrics': [None if t is None else dict(t.result.metrics) for t in tasks],
      }
    )
  return found


def curves(boards: Boards) -> list[dict[str, Any]]:
  """Means over the languages that every step has, of runs with several steps."""
  runs: dict[str, list[eval_boards.Board]] = collections.defaultdict(list)
  for board in boards:
    if board.evaluation.step is not None:
      runs[board.evaluation.run].append(board)
  found = []
  for group in groups(boards):
    lines = []
    for run, steps in runs.items():
      having = [board for board in steps if group in board.groups]
      if len({board.evaluation.step for board in having}) < 2:
        continue
      shared = set.intersection(*({*board.groups[group]} for board in having))
      if not shared:
        continue
      means = [eval_figures.mean([b.groups[group][v] for v in sorted(shared)]) for b in having]
      lines.append(
        {
          'run': run,
          'languages': len(shared),
          'steps': [board.evaluation.step for board in having],
          'values': [figure(mean) for mean in means],
        }
      )
    if lines:
      found.append({'title': group.title, 'metric': group.metric, 'lines': lines})
  return found
