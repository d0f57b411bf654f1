"""Fingerprints of what a SeqIO task gives: its vocabularies and its definition.

They are the same in every process that registers the same task, and are computed without reading
the task's data.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aya_train import signed_json

if TYPE_CHECKING:
  import seqio


def vocabulary_fingerprint(task: seqio.Task) -> str:
  """Returns the SHA-256 (hex) of the vocabularies of a task's integer output features.

  A vocabulary with a SentencePiece model counts by the model's bytes and its extra ids; any other
  by its class and sizes.
  """
  from aya_train.data import task_registry

  names = task_registry.record_features(task)
  return signed_json.digest(
    [_describe_vocabulary(task.output_features[f].vocabulary) for f in names]
  )


def of_vocabulary(vocabulary: seqio.Vocabulary) -> str:
  """Returns the SHA-256 (hex) of one vocabulary, counted as in `vocabulary_fingerprint`."""
  return signed_json.digest(_describe_vocabulary(vocabulary))


def definition_fingerprint(task: seqio.Task) -> str:
  """Returns the SHA-256 (hex) of a task's definition: source, preprocessors, output features.

  Functions count by name, code (without comments and docstrings) and arguments, captured ones
  included; functions they call do not, nor does the module that they stand in: what is prepared
  stays good when code moves. A source counts by its class's name and its arguments; its data is not
  read, so that prepared tasks can be used where the source is not at hand.
  """
  features = {
    name: [f.add_eos, str(f.dtype), f.rank] for name, f in sorted(task.output_features.items())
  }
  source = getattr(task.source, 'whole', task.source)  # of slices: a split is told by its name
  return signed_json.digest(
    [_describe(source), [_describe(p) for p in task.preprocessors], features]
  )


def _describe_vocabulary(vocabulary: seqio.Vocabulary) -> list[Any]:
  model = getattr(vocabulary, 'sp_model', None)
  if isinstance(model, bytes):
    return [hashlib.sha256(model).hexdigest(), vocabulary.extra_ids]
  sizes = [vocabulary.vocab_size, vocabulary.extra_ids, vocabulary.eos_id]
  return [type(vocabulary).__qualname__, *sizes]


def _describe(value: Any, depth: int = 8) -> Any:
  """Returns JSON that is the same in every process that builds the same value."""
  import seqio  # of a task: SeqIO is there already

  if value is None or isinstance(value, bool | int | float | str):
    return value
  name = type(value).__qualname__
  if depth == 0 or isinstance(value, types.ModuleType):
    return name
  describe = functools.partial(_describe, depth=depth - 1)
  if isinstance(value, seqio.Vocabulary) or hasattr(value, 'sp_model'):
    return 'vocabulary'  # Has a fingerprint of its own.
  if isinstance(value, functools.partial):
    return ['partial', describe(value.func), describe(value.args), describe(value.keywords)]
  if isinstance(value, Mapping):
    return [name, sorted(([str(k), describe(v)] for k, v in value.items()), key=lambda kv: kv[0])]
  if isinstance(value, set | frozenset):
    return [name, sorted(json.dumps(describe(v)) for v in value)]
  if isinstance(value, Sequence) and not isinstance(value, bytes):
    return [describe(v) for v in value]
  if inspect.isclass(value) or inspect.isroutine(value):
    return _describe_function(value, describe)
  # Data sources, dataclasses, callable objects: their plain attributes. Others (locks, caches,
  # open files) are not part of a definition.
  kinds = (bool, int, float, str, Mapping, Sequence, set, frozenset, functools.partial)
  attributes = {
    k: describe(v)
    for k, v in sorted(getattr(value, '__dict__', {}).items())
    if v is None or isinstance(v, kinds) or inspect.isroutine(v)
  }
  if isinstance(value, seqio.TfdsDataSource):
    attributes['tfds'] = describe(
      {k: getattr(value.tfds_dataset, k) for k in ('name', '_split_map')}
    )
  if callable(value) and not isinstance(value, seqio.DataSource):
    kind: Any = type(value)
    return [name, attributes, _code(kind)]
  return [name, attributes]


def _describe_function(function: Any, describe: Callable[[Any], Any]) -> list[Any]:
  inner = inspect.unwrap(function)
  cells = [c for c in getattr(inner, '__closure__', None) or () if _is_filled(c)]
  return [
    str(getattr(inner, '__qualname__', inner)),
    _code(inner),
    describe(getattr(inner, '__defaults__', None)),
    [describe(c.cell_contents) for c in cells],
    describe(getattr(inner, '__self__', None)),
  ]


def _is_filled(cell: types.CellType) -> bool:
  try:
    cell.cell_contents  # noqa: B018
  except ValueError:
    return False
  return True


@functools.lru_cache(maxsize=1024)
def _code(function: Any) -> str:
  """Returns a function's source without comments and docstrings; '' where there is no source."""
  try:
    source = textwrap.dedent(inspect.getsource(function))
  except (OSError, TypeError):  # built-in, or defined in a shell
    return ''
  try:
    tree = ast.parse(source)
  except SyntaxError:  # a lambda: Python finds its lines, which need not be a statement
    return source
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
      node.body = node.body[1:] or [ast.Pass()]
  return ast.unparse(tree)
