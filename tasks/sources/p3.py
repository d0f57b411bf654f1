"""P3, the Public Pool of Prompts in English, as the authors of xP3 processed it again for mT0-P3.

Task `p3`, with the splits train and validation: the training tasks of T0, which have none of what
T0, mT0 and Aya-101 are evaluated on. Rows have inputs and targets only. The release is one large
file a split, the training rows in a zip, which a single process reads; unpacked it is divided.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import RowProblemError

SOURCE = 'p3'

# The merged files of the release, or those of single tasks, which its script writes before.
_FILE = re.compile(
  r'(?:(?P<merged>p31?t0|p3_t0)|p3_.+)_(?P<split>train|validation)'
  r'(?P<ending>\.jsonl?|\.jsonl?\.gz|\.zip)'
)


class P3(source_builder.SourceBuilder):
  """Prompted English data sets of 8 tasks: those that T0 was trained on."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  description = __doc__ or ''
  citation = """
@inproceedings{sanh2022multitask,
  title = {Multitask Prompted Training Enables Zero-Shot Task Generalization},
  author = {Victor Sanh and others},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}
"""
  homepage = 'https://huggingface.co/datasets/Muennighoff/P3'
  terms = 'Apache-2.0 (the collection; constituents may have terms of their own)'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """One merged file a split, unpacked where both are there; or else the files of its tasks."""
  if options.languages and 'eng' not in options.languages:
    return []
  by_split: dict[str, list[tuple[bool, bool, releases.ReleasedFile]]] = {}
  for file in files:
    if match := _FILE.fullmatch(file.name.rsplit('/', 1)[-1]):
      packed = match['ending'].endswith(('.zip', '.gz'))
      by_split.setdefault(match['split'], []).append((not match['merged'], packed, file))
  found = []
  for split, members in by_split.items():
    members.sort(key=lambda member: (member[:2], member[2].name))
    chosen = members[:1] if not members[0][0] else _once(members)
    found += [row_units.Input(f.name, f.size, context={'split': split}) for *_, f in chosen]
  return found


def _once(
  members: Sequence[tuple[bool, bool, releases.ReleasedFile]],
) -> list[tuple[bool, bool, releases.ReleasedFile]]:
  """Files of single tasks, none of them both packed and unpacked."""
  found: dict[str, tuple[bool, bool, releases.ReleasedFile]] = {}
  for member in members:
    found.setdefault(re.sub(r'\.(jsonl?|gz|zip)', '', member[2].name), member)
  return list(found.values())


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The row of a record."""
  del options
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  yield (
    rows.Place('', item.context['split'], 'eng'),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      'eng',
      'Latn',
      SOURCE,
      '',
      f'{item.name.rsplit("/", 1)[-1]}:{where.split()[-1]}',
    ),
  )


LAYOUTS = {SOURCE: row_units.Layout(select, to_rows)}
BUILDERS = {SOURCE: P3}

source_tasks.add(SOURCE, source_tasks.BuiltSource(SOURCE))
