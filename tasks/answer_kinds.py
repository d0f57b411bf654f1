"""What a model can be right about: kinds of rows whose answers follow rules, and kinds that ask for
something that was held out. Reports read it."""

import dataclasses
from collections.abc import Callable, Collection


def _whole(kind: str, prompt: str) -> str:
  del kind
  return prompt


@dataclasses.dataclass(frozen=True)
class AnswerKinds:
  """How the rows of a task fall into kinds, by their field `kind`.

  Attributes:
    ruled: kinds whose answers follow rules that hold for entities that were never seen.
    others: what the rest has in common, in a few words; they can only be guessed.
    why: a sentence: why they can.
    copied: kind and prompt -> the answer of a model that only copies what the prompt asks about.
  """

  ruled: Collection[str]
  others: str
  why: str
  copied: Callable[[str, str], str] = _whole


_OF_TASK: dict[str, AnswerKinds] = {}


def add(task: str, kinds: AnswerKinds) -> None:
  """Says so of a task."""
  _OF_TASK[task] = kinds


def of(task: str) -> AnswerKinds | None:
  """What was said of a task, or None: all its kinds are alike then."""
  return _OF_TASK.get(task)


def copied(task: str, kind: str, prompt: str) -> str:
  """The answer of a model that only copies: what is asked about, else the whole prompt."""
  kinds = of(task)
  return (_whole if kinds is None else kinds.copied)(kind, prompt)
