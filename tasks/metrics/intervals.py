"""95 % intervals of figures by bootstrap: examples are drawn again with replacement.

The draws depend on the number of examples and the seed alone, so two systems on the same examples
are resampled alike. An interval is that of percentiles: where all examples agree it has no width,
however few they are.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
LOW, HIGH = '_low', '_high'
_CELLS = 1 << 22  # of a block of draws


def draws(count: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
  """How often each of `count` examples is drawn: float64 blocks [some resamples, count]."""
  generator = np.random.default_rng(seed)
  rows = max(1, _CELLS // max(count, 1))
  for first in range(0, resamples, rows):
    shape = min(rows, resamples - first), count
    chosen = generator.integers(0, count, shape) + np.arange(shape[0])[:, None] * count
    counts = np.bincount(chosen.ravel(), minlength=shape[0] * count)
    yield counts.reshape(shape).astype(np.float64)


def sums(values: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
  """Sums over the examples of each resample.

  Args:
    values: [examples, ...].

  Returns:
    [resamples, ...].
  """
  values = np.asarray(values, np.float64)
  return np.concatenate(
    [np.tensordot(block, values, 1) for block in draws(len(values), resamples, seed)]
  )


def bounds(figures: Sequence[float] | np.ndarray, level: float = LEVEL) -> tuple[float, float]:
  """Percentiles of resampled figures; those that are no number are left out.

  Returns:
    (low, high); NaN twice where no figure is a number.
  """
  figures = np.asarray(figures, np.float64)
  figures = figures[np.isfinite(figures)]
  if not len(figures):
    return float('nan'), float('nan')
  low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def statistic(
  figure: Callable[[np.ndarray], float],
  values: np.ndarray,
  resamples: int = RESAMPLES,
  seed: int = SEED,
  level: float = LEVEL,
) -> tuple[float, float]:
  """Interval of a figure made of sums over the examples, as BLEU is.

  Args:
    figure: of the sums, [statistics] -> number; NaN where it is not defined.
    values: [examples, statistics].
  """
  return bounds([figure(row) for row in sums(values, resamples, seed)], level)


def mean(
  values: Sequence[float] | np.ndarray,
  resamples: int = RESAMPLES,
  seed: int = SEED,
  level: float = LEVEL,
) -> tuple[float, float]:
  """Interval of the mean of values, one an example; NaN twice of none."""
  values = np.asarray(values, np.float64)
  if not len(values):
    return float('nan'), float('nan')
  return bounds(sums(values, resamples, seed) / len(values), level)


def grouped(
  values: Sequence[float] | np.ndarray,
  groups: Sequence[Hashable],
  resamples: int = RESAMPLES,
  seed: int = SEED,
  level: float = LEVEL,
) -> tuple[float, float]:
  """Interval of the mean where examples of a group belong together, such as answers to one prompt.

  Groups are drawn, not examples.
  """
  if not len(groups):
    return float('nan'), float('nan')
  places: dict[Hashable, int] = {}
  index = [places.setdefault(group, len(places)) for group in groups]
  totals = np.bincount(index, np.asarray(values, np.float64))
  sizes = np.bincount(index).astype(np.float64)
  return statistic(
    lambda row: row[0] / row[1], np.stack([totals, sizes], 1), resamples, seed, level
  )


def named(name: str, values: Sequence[float] | np.ndarray, scale: float = 1.0) -> dict[str, float]:
  """{name, name_low, name_high}: the mean and its interval, times `scale`; {} of no values."""
  if not len(values):
    return {}
  values = np.asarray(values, np.float64)
  return with_bounds(name, scale * float(values.mean()), scale * np.asarray(mean(values)))


def percent(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float]:
  """`named`, of shares (0 to 1) or hits as percent."""
  return named(name, values, 100.0)


def with_bounds(
  name: str, figure: float, interval: Sequence[float] | np.ndarray
) -> dict[str, float]:
  """{name, name_low, name_high}, as floats; bounds that are no number are left out."""
  figures = {name: float(figure), name + LOW: float(interval[0]), name + HIGH: float(interval[1])}
  return {key: value for key, value in figures.items() if np.isfinite(value)}


def ratio(
  name: str, above: Sequence[float], below: Sequence[float], scale: float = 1.0
) -> dict[str, float]:
  """{name, name_low, name_high} of a quotient of sums over examples; {} where it is not defined."""
  parts = np.stack([np.asarray(above, np.float64), np.asarray(below, np.float64)], 1)

  def figure(sums: np.ndarray) -> float:
    return scale * sums[0] / sums[1] if sums[1] else float('nan')

  whole = figure(parts.sum(0)) if len(parts) else float('nan')
  return with_bounds(name, whole, statistic(figure, parts)) if np.isfinite(whole) else {}


def simultaneous_level(level: float, count: int) -> float:
  """Level of each of `count` intervals that hold together with `level` (Bonferroni).

  >>> simultaneous_level(0.95, 10)
  0.995
  """
  return round(1 - (1 - level) / max(count, 1), 12)
