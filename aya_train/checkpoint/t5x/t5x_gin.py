"""What T5X's own config.gin, in the folder of its run, says of a network that no array tells.

gin's own parser reads it. A value that only the modules it imports could tell is refused.
"""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

from etils import epath
from gin import config_parser

from aya_train import gin_text
from aya_train.models import t5_config
from aya_train.tasks.building import text_files

logger = logging.getLogger(__name__)
_UNSEEN = ('mlp_activations', 'dropout_rate')
# Networks without a T5Config (flaxformer's) say it of the block.
_WITHOUT_CONFIG = {'MlpBlock': {'activations': 'mlp_activations'}}
_SYNONYMS = {'swish': 'silu'}  # names of the same function in flax
# Networks whose arrays may have the names and shapes of T5's: parts of the modules that a run
# imports, and what it gives as its model.
_OTHER_MODULES = ('decoder_only', 'longt5', 'moe', 'perceiver_ar')
_OTHER_MODELS = ('DecoderOnlyModel', 'PrefixLanguageModel', 'EncoderOnlyModel', 'LongEncoder')
_OF_SHAPES = (
  *('emb_dim', 'num_heads', 'head_dim', 'mlp_dim', 'num_encoder_layers', 'num_decoder_layers'),
)


def find(folder: epath.PathLike) -> epath.Path | None:
  """The config.gin of the run that a `checkpoint_<step>` is of; None where there is none."""
  folder = epath.Path(folder)
  places = (folder / 'config.gin', folder.parent / 'config.gin')
  return next((path for path in places if path.exists()), None)


def read(path: epath.Path) -> dict[str, Any]:
  """Values of T5Config by their names.

  Raises:
    ValueError: it is no gin, includes what is not beside it, or leaves activations or dropout to
      a function, to a macro that is nowhere, or to the scope; or the run is of another network.
  """
  macros: dict[str, Any] = {}
  parameters: dict[str, dict[tuple[str, str], Any]] = {}  # by class, then scope and name
  for statement in _statements(path, ()):
    scope, selector, name = statement.scope, statement.selector, statement.arg_name
    if not name or selector in ('macro', 'gin.macro'):
      macros['/'.join(filter(None, (scope, '' if name else selector)))] = statement.value
    else:
      of_class = parameters.setdefault(selector.rpartition('.')[2], {})
      of_class[f'{scope}/{selector}', name] = statement.value
  macros = gin_text.resolved(macros)
  found: dict[str, Any] = {}
  for (where, name), value in _of_network(parameters):
    value = gin_text.substituted(value, macros)
    value = list(value) if isinstance(value, tuple) else value
    if name in found and found[name] != value and name in _UNSEEN:
      raise ValueError(
        f'{path} says {name} {found[name]!r} and, as {where.strip("/")}, {value!r}: which of them '
        'the checkpoint is of stands nowhere. Leave one, or copy the checkpoint out of that folder'
      )
    if not gin_text.has_references(value):
      found[name] = value if found.get(name, value) == value else None  # of several networks
    elif name in _UNSEEN:
      raise ValueError(
        f'{path} says {name} = {value}, which cannot be known without the modules that it imports. '
        'Write the value there'
      )
  return found


def _of_network(
  parameters: dict[str, dict[tuple[str, str], Any]],
) -> Iterator[tuple[tuple[str, str], Any]]:
  if 'T5Config' in parameters:
    yield from parameters['T5Config'].items()
    return
  for of_class, names in _WITHOUT_CONFIG.items():
    for (where, name), value in parameters.get(of_class, {}).items():
      if name in names:
        yield (where, names[name]), value


def _statements(path: epath.Path, within: tuple[epath.Path, ...]) -> Iterator[Any]:
  """What a file sets, and what it includes, in gin's order."""
  try:
    statements = list(gin_text.statements(text_files.read(path)))
  except ValueError as error:
    raise ValueError(
      f'{path}: {error}. Copy it again from the run, or the checkpoint out of that folder'
    ) from error
  for statement in statements:
    if other := _other_network(statement):
      raise ValueError(
        f'{path} is of a run with {other}, and only encoder-decoders of T5 and mT5 are read here: '
        'give a checkpoint of such a one, or, if this is one, copy it out of that folder'
      )
    if isinstance(statement, config_parser.BindingStatement):
      yield statement
    elif isinstance(statement, config_parser.IncludeStatement):
      included = path.parent / statement.filename
      if not included.exists() or included in (*within, path):
        raise ValueError(
          f'{path} includes {statement.filename}, which is not beside it: what that file says of '
          'the network is unknown. Copy it there'
        )
      yield from _statements(included, (*within, path))


def _other_network(statement: Any) -> str:
  """The module or class of a network that is none of T5's, if a statement has one; else ''."""
  if isinstance(statement, config_parser.ImportStatement):
    return statement.module if {*statement.module.split('.')} & {*_OTHER_MODULES} else ''
  value = getattr(statement, 'value', None)
  if not isinstance(value, gin_text.Reference):
    return ''
  return value if value.removesuffix('()').rpartition('.')[2] in _OTHER_MODELS else ''


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
    ValueError: activations that no network here has, or as many as the arrays cannot have; see
      `read`.
  """
  path = find(folder)
  said = read(path) if path is not None else {}
  if differing := [n for n in _OF_SHAPES if said.get(n) not in (None, getattr(config, n))]:
    logger.warning(
      '%s has %s %r, and the arrays of %s %r: it is of another model, and is not read',
      *(path, differing[0], said[differing[0]], folder, getattr(config, differing[0])),
    )
    return config
  changed: dict[str, Any] = {}
  if 'mlp_activations' in said:
    names = said['mlp_activations']
    names = names if isinstance(names, list) else (names,)
    names = tuple(_SYNONYMS.get(name, name) if isinstance(name, str) else name for name in names)
    if len(names) != len(config.mlp_activations):
      raise ValueError(
        f'{path} says mlp_activations {names}, and the arrays have {len(config.mlp_activations)} '
        'input kernels: it is of another model; move the checkpoint out of that folder'
      )
    changed['mlp_activations'] = names
  if 'dropout_rate' in said:
    changed['dropout_rate'] = rate = said['dropout_rate']
    if isinstance(rate, bool):
      raise ValueError(f'{path} says dropout_rate {rate}: expected a number')
  try:
    return dataclasses.replace(config, **changed)
  except (ValueError, TypeError) as error:
    raise ValueError(f'{path}: {error}') from error
