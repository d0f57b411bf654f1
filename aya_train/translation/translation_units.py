"""Units of work: some rows into one language, each a file that appears whole or not at all.

A unit's bytes depend on its rows and the settings, and on the translations of sentences that other
units have too; not on who runs it, when, or after how many kills. A unit that is there is not made
again.
"""

from typing import Any

from aya_train.tasks import storage
from aya_train.translation import (
  engine_languages,
  repeated_sentences,
  row_translation,
  translation_jobs,
)
from aya_train.translation.engines import Engine
from aya_train.translation.translation_jobs import Job


def run(folder: str, unit: int, target: str) -> tuple[int, int]:
  """Translates a unit into a language, unless that is done.

  Returns:
    Rows and tokens, 0 and 0 if there was nothing to do.

  Raises:
    ValueError: the engine that was opened here is another one than the job's.
  """
  final = translation_jobs.unit_file(folder, unit, target)
  if final.exists():
    return 0, 0
  job, found = translation_jobs.at(folder), translation_jobs.opened(folder, unit, target)
  done, counts = row_translation.translate(
    translation_jobs.rows_of(folder, unit, target),
    found.engine,
    found.source,
    found.into,
    translation_jobs.settings_of(job.settings),
    found.way_back,
    repeated_sentences.known(folder, target),
  )
  lines = [_line(result, found.into, job, found.engine) for result in done]
  final.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(final, translation_jobs.to_unit(lines, counts))
  return counts.rows, counts.tokens


def _line(
  result: row_translation.Translated,
  into: engine_languages.Named,
  job: Job,
  engine: Engine,
) -> dict[str, Any]:
  columns = translation_jobs.settings_of(job.settings).columns
  return {
    'row': {
      **result.row,
      'language_code': into.code,
      'script': into.script,
      'translated_by': engine.name,
    },
    'source': {column: result.source.get(column) for column in columns},
    'reason': result.reason,
    'where': result.where,
    'ratio': result.ratio,
    **{k: v for k in ('chrf', 'score') if (v := getattr(result, k)) is not None},
  }
