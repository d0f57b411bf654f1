"""What can be said of an answer before a judge sees it."""

import functools
import re
from typing import Any

from aya_train.system_answers import Answer

_OF_TASK = re.compile(r'[^.]+\.([a-z]{3})(?:\.|$)')  # BENCHMARK.LANG.PROMPT


def language_of(answer: Answer, default: str = '') -> str:
  """The language that an answer should be in: of its row, of its task's name, or the default."""
  named = _OF_TASK.match(answer.task)
  return answer.language or (named[1] if named else '') or default


@functools.lru_cache(maxsize=2**16)  # a pair is looked at in both orders
def is_in_other_language(text: str, language: str) -> bool:
  """Whether a text is surely not in a language; False where that cannot be told.

  The identifier comes with TensorFlow, which takes seconds the first time.
  """
  if not language or not text.strip():
    return False
  try:
    return _identifier().answers_in(text, language) is False
  except ValueError:  # a language that no table knows
    return False


def _identifier() -> Any:
  from aya_train.tasks.metrics import answer_language

  return answer_language
