"""Sentences to translate: each once, in batches of about the same length, the longest first.

The longest first finds out at once whether memory is enough, and makes the estimate of the time
that is left one of a speed that only rises. Batches depend on the sentences alone.
"""

from collections.abc import Iterable, Sequence


def unique(sentences: Iterable[str]) -> list[str]:
  """Each sentence once, in the order in which it was first seen."""
  return list(dict.fromkeys(sentences))


def batches(
  sentences: Sequence[str], lengths: Sequence[int], *, tokens: int, most: int
) -> list[list[str]]:
  """Batches, the longest sentences first; equal lengths in the order of their characters.

  Args:
    sentences: each once.
    lengths: in tokens.
    tokens: that a batch may have, padding included; a longer sentence is a batch by itself.
    most: sentences of a batch.

  Raises:
    ValueError: tokens or most below 1.
  """
  if tokens < 1 or most < 1:
    raise ValueError(f'a batch has at least 1 token and sentence, got {tokens} and {most}')
  order = sorted(zip(sentences, lengths, strict=True), key=lambda pair: (-pair[1], pair[0]))
  made: list[list[str]] = []
  longest = 0
  for sentence, length in order:
    full = not made or len(made[-1]) == most or (len(made[-1]) + 1) * longest > tokens
    if full:
      made.append([])
      longest = max(length, 1)
    made[-1].append(sentence)
  return made
