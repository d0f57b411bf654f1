"""Adafactor's moments between the formats that keep them.

They are a flat dict with T5X's names of the unrolled network: '<parameter>/v_row' is the mean of
squared gradients over the longer side of a matrix, 'v_col' over the shorter one, 'v' the whole
second moment where they are not kept, 'm' the momentum, which is subtracted. What is not kept is a
zero of shape (1,). That is t5x/adafactor.py's heuristic for matrices, and optax's.
"""

import numpy as np

from aya_train.checkpoint import names
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.models import t5_config

FIELDS = ('v_row', 'v_col', 'v', 'm')
UNUSED = (1,)


def matrix_shape(
  shape: tuple[int, ...], config: t5_config.T5Config, rule: names.Rule
) -> tuple[int, ...]:
  """Shape of one layer of a parameter whose shape in the layout of `config` is given."""
  if config.scan_layers and rule.stack is not None:
    return shape[: config.param_scan_axis] + shape[config.param_scan_axis + 1 :]
  return shape


def check(fields: lazy_arrays.Arrays, shape: tuple[int, ...], what: str) -> None:
  """Refuses moments that are not those of a parameter.

  Args:
    fields: each of FIELDS.
    shape: of the parameter.
    what: it is, for the message.

  Raises:
    ValueError: with the shapes found and expected.
  """
  found = {field: array.shape for field, array in fields.items()}
  whole = {'v': shape, 'v_row': UNUSED, 'v_col': UNUSED}
  factored = {'v': UNUSED}
  if len(shape) == 2:
    smaller, larger = np.argsort(shape)
    factored |= {'v_row': (shape[smaller],), 'v_col': (shape[larger],)}
  if found['m'] not in (UNUSED, shape) or {k: found[k] for k in whole} not in (whole, factored):
    raise ValueError(
      f'{what} of shape {shape} has Adafactor moments of shapes {found}, expected {whole} or '
      f'{factored}'
    )


def in_shape(
  moments: lazy_arrays.Arrays,
  name: str,
  field: str,
  shape: tuple[int, ...],
  wanted: tuple[int, ...],
) -> lazy_arrays.LazyArray:
  """One field in the shape wanted: kept, averaged from `v`, or `v` estimated from its means."""
  if wanted == UNUSED:
    return lazy_arrays.zeros(UNUSED)
  held = moments[f'{name}/{field}']
  if held.shape == tuple(wanted):
    return held
  row, col, whole = (moments[f'{name}/{k}'] for k in ('v_row', 'v_col', 'v'))
  smaller, larger = np.argsort(shape)
  if field != 'v':
    axis = int(larger if field == 'v_row' else smaller)
    return lazy_arrays.computed(wanted, lambda v: v.mean(axis), whole)

  def estimate(v_row: np.ndarray, v_col: np.ndarray) -> np.ndarray:
    scaled = v_row / max(float(v_row.mean()), np.finfo(np.float32).tiny)
    v = np.outer(scaled, v_col)
    return v if smaller == 0 else v.T

  return lazy_arrays.computed(wanted, estimate, row, col)
