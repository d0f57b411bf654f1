"""The Aya Dataset: instructions that people wrote or edited, in 65 languages.

Tasks `aya_dataset` (the languages of the 101: Wolof is left out, as Aya-101 did) and
`aya_dataset.<ISO 639-3>`. The test split is the text of the evaluation suite's
aya_human_annotated: nothing here puts it into training. `demographics` reads who the annotators
are.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import records, releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import FilteredRowError, RowProblemError

SOURCE = 'aya_dataset'

CITATION = """
@misc{singh2024aya,
  title = {Aya Dataset: An Open-Access Collection for Multilingual Instruction Tuning},
  author = {Shivalika Singh and others},
  year = {2024},
  eprint = {2402.06619},
  archivePrefix = {arXiv}
}
"""


class AyaDataset(source_builder.SourceBuilder):
  """204K instructions written or edited by people, a split for each language."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  description = __doc__ or ''
  citation = CITATION
  homepage = 'https://huggingface.co/datasets/CohereForAI/aya_dataset'
  terms = 'Apache-2.0'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """Files of the default config: `data/train-*`, `data/test-*`, or the same without a folder.

  Also `aya_dataset/train-*`, where the Aya Collection has the same rows.
  """
  del options
  found = []
  for file in files:
    *folders, base = file.name.split('/')
    split = base.split('-')[0].split('.')[0]
    if split in ('train', 'test') and folders[-1:] in ([], ['data'], [SOURCE]):
      found.append(row_units.Input(file.name, file.size, context={'config': '', 'split': split}))
  return found


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The row of a record; `dataset` is 'aya_dataset', `task_type` the annotation's."""
  del options
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  if 'user_id' in record and 'inputs' not in record:
    raise FilteredRowError('demographics')
  name = rows.optional(record, 'language')
  code = rows.optional(record, 'language_code', 'language')
  variety = rows.language(code, rows.optional(record, 'script'))
  if name.lower().startswith(('simplified', 'traditional')):  # the code of both is zho
    variety = rows.language(name)
  split = item.context['split']
  yield (
    rows.Place('', split, variety.code),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      variety.code,
      variety.script,
      SOURCE,
      rows.optional(record, 'annotation_type'),
      f'{item.name}:{where.split()[-1]}',
    ),
  )


@dataclasses.dataclass(frozen=True)
class Annotator:
  """One row of the config demographics; what was not told is None or empty."""

  user_id: str
  age_range: tuple[int, ...]
  gender: str | None
  country: str | None
  languages: tuple[str, ...]
  dialects: tuple[str, ...]


def demographics(
  place: epath.PathLike | None = None, revision: str | None = None
) -> list[Annotator]:
  """The annotators, of `demographics/train-*` of a folder or of the hub.

  Raises:
    ValueError: the release has no such file, or a row lacks its columns.
  """
  release = releases.find(catalog.by_name(SOURCE).repository, place, revision)
  files = releases.matching(release.files, '*demographics*')
  if not files:
    raise ValueError(f'{release.place}: no file of the config demographics')
  releases.refuse_missing_shards(files, release.place)
  found = []
  for file in files:
    for where, record in records.read(release.path(file)):
      try:
        found.append(_annotator(record))
      except (KeyError, TypeError) as error:
        raise ValueError(f'{file.name}, {where}: not a row of demographics ({error!r})') from error
  return found


def _annotator(record: Mapping[str, Any]) -> Annotator:
  return Annotator(
    record['user_id'],
    tuple(record['age_range'] or ()),
    record['gender'],
    record['country'],
    tuple(record['languages'] or ()),
    tuple(record['dialects'] or ()),
  )


LAYOUTS = {SOURCE: row_units.Layout(select, to_rows)}
BUILDERS = {SOURCE: AyaDataset}

source_tasks.add(SOURCE, source_tasks.BuiltSource(SOURCE, codes=source_tasks.AYA_LANGUAGES))
LANGUAGE_TASKS = tuple(
  source_tasks.add(f'{SOURCE}.{code}', source_tasks.BuiltSource(SOURCE, codes=(code,)))
  for code in catalog.ANNOTATED_LANGUAGES
)
