"""A scorer of translations that needs no reference, named by the user as `module:function`.

The function is called with (sources, translations, source language, target language): two lists of
texts of the same length and two codes in ISO 639-3; it gives a number for each pair, higher is
better. CometKiwi and its like are wrapped by such a function; their licenses are their own.
"""

import functools
import importlib
import math
from collections.abc import Callable, Sequence

Scorer = Callable[[Sequence[str], Sequence[str], str, str], Sequence[float]]


@functools.cache
def load(name: str) -> Scorer:
  """The function of a name; loaded once in each process.

  Raises:
    ValueError: the name is none of a function that can be imported.
  """
  module, colon, attribute = name.partition(':')
  if not (module and colon and attribute):
    raise ValueError(f'--scorer {name!r}: expected module:function')
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError) as error:
    raise ValueError(f'--scorer {name!r} cannot be imported: {error}') from error
  if not callable(found):
    raise ValueError(f'--scorer {name!r} is a {type(found).__name__}, and no function')
  return found


def scores(name: str, pairs: Sequence[tuple[str, str]], source: str, target: str) -> list[float]:
  """Scores of (source, translation) pairs by a named scorer.

  Raises:
    ValueError: it gives another number of scores, or what is no finite number.
  """
  if not pairs:
    return []
  found = load(name)([a for a, _ in pairs], [b for _, b in pairs], source, target)
  made = [float(value) for value in found]
  if len(made) != len(pairs):
    raise ValueError(f'--scorer {name} gave {len(made)} scores for {len(pairs)} pairs')
  if bad := [value for value in made if not math.isfinite(value)]:
    raise ValueError(f'--scorer {name} gave {bad[0]}, which is no finite number')
  return made
