"""Which answers of a teacher are kept: the Aya paper's filters of its safety data (appendix J)."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Filters:
  """Limits; the defaults are the paper's, which dropped about 3 % of the answers.

  Attributes:
    min_characters, max_characters: of an answer, in code points, without spaces around it.
    max_repeated: an answer goes if some part of it, longer than its length / 2.1, comes twice.
  """

  min_characters: int = 20
  max_characters: int = 1000
  max_repeated: float = 1 / 2.1

  def reason(self, text: str) -> str:
    """Why an answer goes: short, long or repeated; '' where it stays."""
    text = text.strip()
    if len(text) < self.min_characters:
      return 'short'
    if len(text) > self.max_characters:
      return 'long'
    return 'repeated' if repeats(text, len(text) * self.max_repeated) else ''


def repeats(text: str, longer_than: float) -> bool:
  """Whether some substring of more than so many characters occurs twice; it may overlap itself."""
  length = math.floor(longer_than + 1e-9) + 1
  seen: set[str] = set()
  for start in range(len(text) - length + 1):
    part = text[start : start + length]
    if part in seen:
      return True
    seen.add(part)
  return False
