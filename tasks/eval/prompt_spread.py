"""What several prompts of one benchmark and language give together: median and maximum.

The Aya paper reports the median over prompts per language, mT0's tables the median and the maximum.
"""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval_tasks import EvalTask, Result


@dataclasses.dataclass(frozen=True)
class PromptSpread:
  """Figures of one metric over the prompts of a benchmark in one language.

  Attributes:
    benchmark, language, protocol, subset: as in `EvalTask`.
    metric: 'accuracy'.
    median, maximum, minimum: over the prompts that there are.
    best_prompt: that has the maximum; the first by name of several.
    by_prompt: figure of each prompt, sorted by name.
    missing: prompts that are registered for it and have no figure, sorted.
    num_examples: of each prompt; the smallest where they differ.
  """

  benchmark: str
  language: str
  protocol: str
  subset: str
  metric: str
  median: float
  maximum: float
  minimum: float
  best_prompt: str
  by_prompt: Mapping[str, float]
  missing: tuple[str, ...]
  num_examples: int


def over_prompts(
  results: Mapping[str, Result] | Iterable[Result], metric: str | None = None
) -> list[PromptSpread]:
  """Spreads, sorted by benchmark, language, protocol and subset.

  Tasks without a prompt of their own make a spread of one, so a table can be made of all alike.

  Args:
    results: of tasks, by name or not.
    metric: that is looked at; by default the published one of each task.
  """
  found = results.values() if isinstance(results, Mapping) else results
  groups: dict[tuple[str, ...], dict[str, Result]] = defaultdict(dict)
  for result in found:
    name = metric or result.about.metric
    if name in result.metrics:
      groups[(*_group(result.about), name)][result.about.prompt] = result
  registered: dict[tuple[str, ...], set[str]] = defaultdict(set)
  for task in eval_tasks.all_tasks():
    registered[_group(task)].add(task.prompt)
  spreads = []
  for key, of_prompt in sorted(groups.items()):
    benchmark, language, protocol, subset, name = key
    figures = {prompt: of_prompt[prompt].metrics[name] for prompt in sorted(of_prompt)}
    best = max(figures, key=figures.__getitem__)
    spreads.append(
      PromptSpread(
        benchmark,
        language,
        protocol,
        subset,
        name,
        median=statistics.median(figures.values()),
        maximum=figures[best],
        minimum=min(figures.values()),
        best_prompt=best,
        by_prompt=figures,
        missing=tuple(sorted(registered[key[:-1]] - {*figures})),
        num_examples=min(result.num_examples for result in of_prompt.values()),
      )
    )
  return spreads


def _group(task: EvalTask) -> tuple[str, str, str, str]:
  return task.benchmark, task.language, task.protocol, task.subset
