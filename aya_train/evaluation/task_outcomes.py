"""What the evaluation of one task gave, and the place that keeps it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What an evaluation of one task gave.

  Attributes:
    metrics: those that are single numbers.
    num_examples: scored; of ranked options the questions.
    notes: what a reader of the figures must know.
    is_ranked: whether options were ranked.
    is_kept: whether the answers, and their figures, are of an earlier process.
  """

  metrics: Mapping[str, float]
  num_examples: int
  notes: Sequence[str]
  is_ranked: bool = False
  is_kept: bool = False


class Store(Protocol):
  """Where answers outlive the process, and go on; see `eval_results.Results`."""

  def open(self, kind: str, about: Mapping[str, Any], num_questions: int) -> Any:
    """A context with the records (`answer_file.AnswerFile`) of a task, `about['task']`."""

  def known(self, task: str) -> Outcome | None:
    """Figures of the same answers, if they are there."""
