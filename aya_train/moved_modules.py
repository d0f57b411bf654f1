"""Modules that have moved: gin texts of earlier runs import them by the names of then."""

import re

# Those that gin files of the package ever imported.
_PLACES = {
  'aya_train.data': 'aya_train.data.batching',
  'aya_train.evaluation': 'aya_train.evaluation.evaluation',
  'aya_train.infer_eval': 'aya_train.evaluation.infer_eval',
  'aya_train.models.seq2seq': 'aya_train.objectives.seq2seq',
}
_IMPORT = re.compile(r'^from ([\w.]+) import (\w+)(?: as (\w+))?(?=\s|$)', re.MULTILINE)


def found(text: str) -> str:
  """A gin text whose imports name the places of today; what they bind keeps its name."""
  return _IMPORT.sub(_found, text)


def _found(statement: re.Match[str]) -> str:
  package, module, alias = statement.groups()
  if (place := _PLACES.get(f'{package}.{module}')) is None:
    return statement[0]
  new_package, _, new_module = place.rpartition('.')
  name = alias or module
  renamed = '' if name == new_module else f' as {name}'
  return f'from {new_package} import {new_module}{renamed}'
