"""What T5X's own config.gin, in the folder of its run, says of a network that no array tells."""

import ast
import dataclasses
import functools
import logging
import re
from typing import Any

from etils import epath

from aya_train.models import t5_config

logger = logging.getLogger(__name__)
_FIELD = re.compile(r'^\s*(?:[\w./]*[./])?T5Config\.(\w+)\s*=\s*(.+)$', re.MULTILINE)
_MACRO = re.compile(r'^\s*(\w+)\s*=\s*(.+)$', re.MULTILINE)
_SYNONYMS = {'swish': 'silu'}  # names of the same function in flax
_OF_SHAPES = (
  *('emb_dim', 'num_heads', 'head_dim', 'mlp_dim', 'num_encoder_layers', 'num_decoder_layers'),
)


def find(folder: epath.PathLike) -> epath.Path | None:
  """The config.gin of the run that a `checkpoint_<step>` is of; None where there is none."""
  folder = epath.Path(folder)
  places = (folder / 'config.gin', folder.parent / 'config.gin')
  return next((path for path in places if path.exists()), None)


@functools.lru_cache(maxsize=16)
def read(path: epath.Path) -> dict[str, Any]:
  """Values of T5Config by their names; what is no literal or macro of one is left out."""
  text = path.read_bytes().decode('utf-8', 'replace').replace('\\\n', ' ')
  macros = {name: value.strip() for name, value in _MACRO.findall(text)}
  found = {}
  for name, written in _FIELD.findall(text):
    value = written.strip()
    if value.startswith('%'):
      value = macros.get(value[1:], '')
    try:
      found[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
      continue
  return found


def tells_function(folder: epath.PathLike) -> bool:
  """Whether a config.gin says what the MLP computes."""
  path = find(folder)
  return path is not None and 'mlp_activations' in read(path)


def applied(config: t5_config.T5Config, folder: epath.PathLike) -> t5_config.T5Config:
  """A network as its arrays tell it, with activation and dropout of the run's config.gin.

  Args:
    config: of the arrays.
    folder: `checkpoint_<step>`.

  Raises:
    ValueError: activations that no network here has, or as many as the arrays cannot have.
  """
  path = find(folder)
  said = read(path) if path is not None else {}
  if differing := [n for n in _OF_SHAPES if n in said and said[n] != getattr(config, n)]:
    logger.warning(
      '%s has %s %r, and the arrays of %s %r: it is of another model, and is not read',
      *(path, differing[0], said[differing[0]], folder, getattr(config, differing[0])),
    )
    return config
  changed: dict[str, Any] = {}
  if 'mlp_activations' in said:
    names = said['mlp_activations']
    names = names if isinstance(names, list | tuple) else (names,)
    names = tuple(_SYNONYMS.get(name, name) if isinstance(name, str) else name for name in names)
    if len(names) != len(config.mlp_activations):
      raise ValueError(
        f'{path} says mlp_activations {names}, and the arrays have {len(config.mlp_activations)} '
        'input kernels: it is of another model; move the checkpoint out of that folder'
      )
    changed['mlp_activations'] = names
  rate = said.get('dropout_rate')
  if isinstance(rate, int | float) and not isinstance(rate, bool):
    changed['dropout_rate'] = float(rate)
  try:
    return dataclasses.replace(config, **changed)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{path}: {error}') from error
