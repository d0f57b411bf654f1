"""xP3x: prompted data sets in 277 languages, of which the 101 are read.

Tasks `xp3x` and `xp3x.<ISO 639-3>` are pruned as Aya-101 did; `xp3x_full` and
`xp3x_full.<ISO 639-3>` are cut to the 101 languages only, as for mT0x. Neither has what Aya-101 is
evaluated on, nor validation and test splits: by the row's own columns, since the hub calls all of
it train.

Rows of the pruned set and the others lie in different splits, `pruned_yor` and `rest_yor`, so
that nothing is stored twice.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import FilteredRowError, RowProblemError
from aya_train.tasks.languages import language_codes
from aya_train.tasks.sources import xp3x_templates

SOURCE = 'xp3x'

CITATION = """
@article{muennighoff2022crosslingual,
  title = {Crosslingual Generalization through Multitask Finetuning},
  author = {Niklas Muennighoff and others},
  journal = {arXiv preprint arXiv:2211.01786},
  year = {2022}
}
"""


class Xp3x(source_builder.SourceBuilder):
  """Rows of the 101 languages: splits `pruned_<code>` and `rest_<code>`."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  description = __doc__ or ''
  citation = CITATION
  homepage = 'https://huggingface.co/datasets/CohereForAI/xP3x'
  terms = 'Apache-2.0 (the collection; constituents may have terms of their own)'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


# Beginnings of file names whose data set is an evaluation whatever the row says.
_EVALUATION_FILES = tuple(
  'xp3_' + name.replace('/', '_').lower() + '_'
  for name in sorted(xp3x_templates.EVALUATION)
  if '/' not in name or name.startswith('muennighoff/')
)


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """Files `data/<folder>/xp3_*.jsonl` of the wanted languages; folders may lie at the top.

  Raises:
    ValueError: a folder with such files has a name that no table of languages knows.
  """
  found = []
  for file in files:
    *folders, base = file.name.split('/')
    if not folders or not base.startswith(('xp3_', 'merged_')):
      continue
    if _folder_is_wanted(folders[-1], options.languages) and not base.lower().startswith(
      _EVALUATION_FILES
    ):
      found.append(row_units.Input(file.name, file.size, context={'folder': folders[-1]}))
  return found


@functools.lru_cache(maxsize=1024)
def _folder_is_wanted(folder: str, codes: tuple[str, ...]) -> bool:
  variety = language_codes.resolve(folder)
  return variety.code in codes if codes else variety.of_aya


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The row of a record; `dataset` is the prompted data set's name."""
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  variety = rows.language(rows.text(record, 'language') or item.context['folder'])
  if not options.languages and not variety.of_aya:
    raise FilteredRowError('not one of the 101 languages')
  dataset, split = rows.text(record, 'dataset'), rows.text(record, 'split')
  template, config = rows.text(record, 'template'), rows.optional(record, 'config')
  if xp3x_templates.is_evaluation(dataset, config):
    raise FilteredRowError('evaluation data set')
  if not xp3x_templates.is_trained(dataset, split):
    raise FilteredRowError('validation or test split')
  kept = xp3x_templates.is_kept(dataset, template, _given(options.templates))
  yield (
    rows.Place('', 'pruned' if kept else 'rest', variety.code),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      variety.code,
      variety.script,
      dataset,
      template,
      f'{item.name.rsplit("/", 1)[-1]}:{where.split()[-1]}',
    ),
  )


_given = functools.lru_cache(maxsize=4)(xp3x_templates.parse)

LAYOUTS = {SOURCE: row_units.Layout(select, to_rows)}
BUILDERS = {SOURCE: Xp3x}


def _add_tasks() -> None:
  views = ((SOURCE, ('pruned',)), (f'{SOURCE}_full', ('pruned', 'rest')))
  for name, kinds in views:
    splits = {'train': kinds}
    source_tasks.add(
      name, source_tasks.BuiltSource(SOURCE, splits=splits, codes=source_tasks.AYA_LANGUAGES)
    )
    for code in source_tasks.AYA_LANGUAGES:
      source_tasks.add(
        f'{name}.{code}', source_tasks.BuiltSource(SOURCE, splits=splits, codes=(code,))
      )


_add_tasks()
