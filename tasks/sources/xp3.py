"""xP3, xP3mt and xP3all: what mT0 and BLOOMZ were trained on.

Tasks `xp3`, `xp3mt`, `xp3all`, and each with `.<ISO 639-3>`. A folder holds one merged file, or
the files that it was merged from; where both are there the merged one is read. Rows have inputs
and targets only, so their language is the folder's. xP3all has what models are evaluated on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.languages import language_codes
from aya_train.tasks.sources import xp3x

NAMES = ('xp3', 'xp3mt', 'xp3all')


class _Xp3(source_builder.SourceBuilder, skip_registration=True):  # type: ignore[call-arg]
  description = __doc__ or ''
  citation = xp3x.CITATION
  terms = 'Apache-2.0 (the collection; constituents may have terms of their own)'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


class Xp3(_Xp3):
  """13 tasks in 46 languages (one is program code), English prompts."""

  name = 'xp3'
  source = 'xp3'
  homepage = 'https://huggingface.co/datasets/bigscience/xP3'
  VERSION = tfds.core.Version(catalog.by_name('xp3').version)


class Xp3mt(_Xp3):
  """As xP3, prompts machine-translated to 20 languages."""

  name = 'xp3mt'
  source = 'xp3mt'
  homepage = 'https://huggingface.co/datasets/bigscience/xP3mt'
  VERSION = tfds.core.Version(catalog.by_name('xp3mt').version)


class Xp3all(_Xp3):
  """As xP3, with the tasks that are held out of it for evaluation."""

  name = 'xp3all'
  source = 'xp3all'
  homepage = 'https://huggingface.co/datasets/bigscience/xP3all'
  VERSION = tfds.core.Version(catalog.by_name('xp3all').version)


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """Files `<folder>/merged_<folder>.jsonl`, or else `<folder>/xp3_*.jsonl`."""
  by_folder: dict[str, list[releases.ReleasedFile]] = {}
  for file in files:
    *folders, base = file.name.split('/')
    if folders and base.startswith(('merged_', 'xp3_')):
      by_folder.setdefault(folders[-1], []).append(file)
  found = []
  for folder, members in by_folder.items():
    if options.languages and language_codes.resolve(folder).code not in options.languages:
      continue
    merged = [f for f in members if f.name.rsplit('/', 1)[-1].startswith('merged_')]
    context = {'folder': folder}
    found += [row_units.Input(f.name, f.size, context=context) for f in merged or members]
  return found


def _layout(name: str) -> row_units.Layout:
  return row_units.Layout(select, _TO_ROWS[name])


def _row(
  name: str, record: Any, item: row_units.Input, where: str
) -> Iterator[tuple[rows.Place, rows.Row]]:
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  variety = rows.language(item.context['folder'])
  yield (
    rows.Place('', 'train', variety.code),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      variety.code,
      variety.script,
      name,
      '',
      f'{item.name.rsplit("/", 1)[-1]}:{where.split()[-1]}',
    ),
  )


_TO_ROWS = {
  'xp3': lambda record, item, where, options: _row('xp3', record, item, where),
  'xp3mt': lambda record, item, where, options: _row('xp3mt', record, item, where),
  'xp3all': lambda record, item, where, options: _row('xp3all', record, item, where),
}
LAYOUTS = {name: _layout(name) for name in NAMES}
BUILDERS = {'xp3': Xp3, 'xp3mt': Xp3mt, 'xp3all': Xp3all}

_CODES = tuple(sorted({language_codes.resolve(folder).code for folder in catalog.XP3_LANGUAGES}))
for _name in NAMES:
  source_tasks.add(_name, source_tasks.BuiltSource(_name))
  for _code in _CODES:
    source_tasks.add(f'{_name}.{_code}', source_tasks.BuiltSource(_name, codes=(_code,)))
