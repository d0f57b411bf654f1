"""A scorer of translations that needs no reference, named by the user as `MODULE:FUNCTION`.

The function is called with (sources, translations, source language, target language): two lists of
texts of the same length and two codes in ISO 639-3; it gives a number for each pair, higher is
better. CometKiwi and its like are wrapped by such a function; their licences are their own.
"""

import functools
from collections.abc import Callable, Sequence

from aya_train import user_functions

Scorer = Callable[[Sequence[str], Sequence[str], str, str], Sequence[float]]


@functools.cache
def load(name: str) -> Scorer:
  """The function of a name; loaded once in each process.

  Raises:
    ValueError: the name is none of a function that can be imported.
  """
  try:
    return user_functions.load(name)
  except ValueError as error:
    raise ValueError(f'--scorer {name!r}: {error}') from error


def scores(name: str, pairs: Sequence[tuple[str, str]], source: str, target: str) -> list[float]:
  """Scores of (source, translation) pairs by a named scorer.

  Raises:
    ValueError: it gives another number of scores, or what is no finite number.
  """
  if not pairs:
    return []
  found = load(name)([a for a, _ in pairs], [b for _, b in pairs], source, target)
  try:
    return user_functions.numbers(found, len(pairs), 'score')
  except ValueError as error:
    raise ValueError(f'--scorer {name!r}: {error}') from None
