"""The Aya Evaluation Suite: prompts for open-ended generation, with a reference answer each.

Tasks `aya_evaluation_suite.<config>` for the three configs, and `.<config>.<ISO 639-3>`. They
have the split test only, and are never to be trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.sources import aya_dataset

SOURCE = 'aya_evaluation_suite'

LANGUAGES = {
  'aya_human_annotated': ('ara', 'eng', 'por', 'tel', 'tur', 'yor', 'zho'),
  'dolly_human_edited': ('ara', 'fra', 'hin', 'rus', 'spa', 'srp'),
  'dolly_machine_translated': catalog.TRANSLATED_LANGUAGES,
}


class AyaEvaluationSuite(source_builder.SourceBuilder):
  """Prompts and reference answers, a split for each language."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=config) for config in catalog.EVALUATION_SUITE
  ]
  description = __doc__ or ''
  citation = aya_dataset.CITATION
  homepage = 'https://huggingface.co/datasets/CohereForAI/aya_evaluation_suite'
  terms = 'Apache-2.0'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """Files `<config>/test-*`."""
  wanted = options.constituents or catalog.EVALUATION_SUITE
  return [
    row_units.Input(file.name, file.size, context={'config': config})
    for file in files
    for config in wanted
    if f'/{config}/test' in f'/{file.name}'
  ]


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The row of a record. `id` is the released one, which joins translations of one prompt."""
  del options, where
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  code = rows.optional(record, 'language', 'language_code')
  variety = rows.language(code, rows.optional(record, 'script'))
  config = item.context['config']
  yield (
    rows.Place(config, 'test', variety.code),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      variety.code,
      variety.script,
      config,
      'generation',
      rows.optional(record, 'id'),
    ),
  )


LAYOUTS = {SOURCE: row_units.Layout(select, to_rows)}
BUILDERS = {SOURCE: AyaEvaluationSuite}

for _config in catalog.EVALUATION_SUITE:
  source_tasks.add(f'{SOURCE}.{_config}', source_tasks.BuiltSource(SOURCE, (_config,)))
LANGUAGE_TASKS = tuple(
  source_tasks.add(
    f'{SOURCE}.{config}.{code}', source_tasks.BuiltSource(SOURCE, (config,), codes=(code,))
  )
  for config, codes in LANGUAGES.items()
  for code in codes
)
