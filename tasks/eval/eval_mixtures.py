"""Mixtures of evaluation tasks: a benchmark, and a language of it."""

from collections import defaultdict
from collections.abc import Iterable

import seqio

from aya_train.tasks import ranked_options
from aya_train.tasks.eval_tasks import EvalTask


def add(tasks: Iterable[EvalTask]) -> list[str]:
  """Registers mixtures BENCHMARK and BENCHMARK.LANG of tasks, each task with rate 1.

  Tasks of the harness protocol make mixtures of their own, whose names end in '.harness'. A name
  that a task has already stands for that task.

  Returns:
    Names of the mixtures, sorted.
  """
  parts: dict[str, list[str]] = defaultdict(list)
  for task in tasks:
    ending = ranked_options.ENDINGS.get(task.protocol, '')
    parts[f'{task.benchmark}{ending}'].append(task.name)
    if task.language:
      parts[f'{task.benchmark}.{task.language}{ending}'].append(task.name)
  known = seqio.TaskRegistry.names()
  names = sorted(name for name in parts if name not in known)
  for name in names:
    seqio.MixtureRegistry.add(name, parts[name], default_rate=1.0)
  return names
