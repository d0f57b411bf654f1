"""The Aya Evaluation Suite's three subsets: open-ended prompts; see aya_open_ended.md.

Tasks `aya_human_annotated.<ISO 639-3>.plain`, `dolly_human_edited...`,
`dolly_machine_translated...`, whose win rates are for a judge to find; mixtures of each subset and
of its languages. (`aya_evaluation_suite...` are the same rows as a source, without metrics.)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from aya_train.tasks import catalog, eval_tasks
from aya_train.tasks.building import row_units
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  eval_source,
  generated_tasks,
  release_files,
  row_columns,
)
from aya_train.tasks.metrics import answer_language, answer_shape, rouge, translation
from aya_train.tasks.sources import aya_evaluation_suite

RELEASE = eval_releases.Release(
  'aya_evaluation_suite',
  'https://huggingface.co/datasets/CohereForAI/aya_evaluation_suite',
  repository=catalog.by_name('aya_evaluation_suite').repository,
)

PLAIN = generated_tasks.Prompt('plain', '{inputs}')


def read(split: str, config: str, code: str) -> Iterator[generated_tasks.Example]:
  """Prompts of a subset in a language, with the reference answer; the split is 'test'.

  Raises:
    EvalDataError: a row is of another shape; no row of the language.
  """
  files = tuple(eval_releases.find(RELEASE, *eval_releases.hub_patterns(config, split)))
  return generated_tasks.of_language(
    _examples(config, files, generated_tasks.sizes(files)), code, RELEASE
  )


@functools.lru_cache(maxsize=2)
def _examples(
  config: str, files: tuple[release_files.EvalFile, ...], sizes: tuple[int, ...]
) -> tuple[generated_tasks.Example, ...]:
  """All languages of a subset, which lie in one file: read once for all of their tasks."""
  del sizes  # another file of the same name
  found = []
  item = row_units.Input(config, 0, context={'config': config})
  for file in files:
    for where, record in eval_releases.read(file):
      row_columns.text(record, 'inputs', where)
      try:
        for _, row in aya_evaluation_suite.to_rows(record, item, where, row_units.Options()):
          found.append(
            generated_tasks.Example(
              where,
              {'inputs': row.inputs},
              (row.targets,),
              row.id,
              row.language_code,
              {'script': row.script},
            )
          )
      except RowProblemError as error:
        raise row_columns.EvalDataError(f'{where}: {error}') from error
  return tuple(found)


def _benchmark(config: str) -> generated_tasks.Benchmark:
  return generated_tasks.Benchmark(
    config,
    functools.partial(read, config=config),
    (
      answer_shape.lengths,
      answer_shape.repetition,
      answer_language.asked_language,
      rouge.rouge,
      translation.chrf,
    ),
    metric='answer_characters',
    fields={'script': eval_source.STRING},
  )


TASKS = tuple(
  _benchmark(config).add(code, PLAIN, code=code)
  for config, codes in aya_evaluation_suite.LANGUAGES.items()
  for code in codes
)
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])
