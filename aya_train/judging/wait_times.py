"""Times to wait: as a server asks for them, and as people say them."""

import contextlib
import email.utils
import math
import time
from collections.abc import Mapping


def words(seconds: float | None) -> str:
  """A time as people say it."""
  seconds = seconds or 0.0
  if seconds < 90:
    return f'{round(seconds, 2):.3g} s'
  return f'{seconds / 60:.3g} min' if seconds < 5400 else f'{seconds / 3600:.3g} h'


def asked_for(headers: Mapping[str, str]) -> float | None:
  """Seconds that a server asks for: as a number of them, of thousandths, or as a date."""
  for name, scale in (('retry-after-ms', 1000.0), ('retry-after', 1.0)):
    given = headers.get(name)
    if not given:
      continue
    with contextlib.suppress(ValueError):
      if math.isfinite(seconds := float(given)):
        return max(0.0, seconds / scale)
    with contextlib.suppress(ValueError, TypeError):
      return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
  return None
