"""Hugging Face folders as a source of weights, in the layout and sharding the model wants."""

import dataclasses
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from aya_train.checkpoint import hf_export, layouts
from aya_train.models import t5_config


def open_scanned(
  folder: epath.PathLike, scan_axis: int = 1
) -> tuple[dict[str, layouts.LazyArray], t5_config.T5Config]:
  """Lazy arrays by whole scanned name, and the config with `scan_layers`."""
  flat, config = hf_export.import_hf(folder)
  config = dataclasses.replace(config, scan_layers=True, param_scan_axis=scan_axis)
  return layouts.to_scanned(flat, layouts.table_of(config), scan_axis), config


def read(folder: epath.PathLike, abstract: Any, config: t5_config.T5Config) -> Any:
  """Parameters laid out as `abstract` (arrays with shardings), each read when its turn comes.

  Raises:
    ValueError: names or shapes differ from the model's.
  """
  if config.scan_layers:
    flat, _ = open_scanned(folder, config.param_scan_axis)
  else:
    flat, _ = hf_export.import_hf(folder)
  wanted = traverse_util.flatten_dict(abstract, sep='/')
  missing, unknown = sorted(set(wanted) - set(flat)), sorted(set(flat) - set(wanted))
  if missing or unknown:
    raise ValueError(
      f'{folder} does not fit the model: it lacks {missing[:5]} and has {unknown[:5]} in excess'
    )
  layouts.check_shapes(flat, {k: tuple(v.shape) for k, v in wanted.items()}, str(folder))

  def put(name: str) -> jax.Array:
    host, leaf = np.asarray(flat[name], np.float32), wanted[name]
    return jax.make_array_from_callback(host.shape, leaf.sharding, lambda index: host[index])

  return traverse_util.unflatten_dict({name: put(name) for name in wanted}, sep='/')
