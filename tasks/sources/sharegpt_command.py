"""ShareGPT-Command: a part of Aya-101's mixture that was never released.

Human prompts from ShareGPT, completions of Cohere's Command model, translated to 93 languages.
Its authors had leave to train on Command's output, which Cohere's terms forbid to others; the
audit of ShareGPT's own licence says Unspecified, with OpenAI's terms. So nothing is downloaded,
no mixture has it unless asked, and `aya-train prepare sharegpt_command` reads a folder that the
user supplies and answers for.

Task `sharegpt_command`. Files: flat records with inputs, targets and language (and script), or
ShareGPT's form with conversations, of which the first question and answer are taken. The published
filters of prompts are applied: no URL, at most 10,000 characters.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import FilteredRowError, RowProblemError

SOURCE = 'sharegpt_command'
MAX_PROMPT_CHARACTERS = 10_000
_URL = re.compile(r'https?://|www\.')


class SharegptCommand(source_builder.SourceBuilder):
  """User-supplied questions and answers, a split for each language."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  description = __doc__ or ''
  homepage = 'https://arxiv.org/abs/2402.07827'
  terms = 'unreleased; the terms are those of the files that the user supplies'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """All files of the folder."""
  del options
  return [row_units.Input(f.name, f.size) for f in files]


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The row of a flat record or of a conversation's first turn."""
  del options
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  if 'conversations' in record:
    inputs, targets = _first_turn(record['conversations'])
  else:
    inputs, targets = rows.text(record, 'inputs'), rows.text(record, 'targets')
  if len(inputs) > MAX_PROMPT_CHARACTERS or _URL.search(inputs):
    raise FilteredRowError('prompt with a URL or of over 10,000 characters')
  code = rows.optional(record, 'language_code', 'language') or 'eng'
  variety = rows.language(code, rows.optional(record, 'script'))
  yield (
    rows.Place('', 'train', variety.code),
    rows.Row(
      inputs,
      targets,
      variety.code,
      variety.script,
      SOURCE,
      'generation',
      f'{rows.optional(record, "id") or item.name + ":" + where.split()[-1]}',
    ),
  )


def _first_turn(turns: Any) -> tuple[str, str]:
  if not isinstance(turns, list):
    raise RowProblemError('wrong_columns', 'conversations should be a list')
  spoken = [t for t in turns if isinstance(t, Mapping) and t.get('from') in ('human', 'gpt')]
  if len(spoken) < 2 or spoken[0]['from'] != 'human' or spoken[1]['from'] != 'gpt':
    raise RowProblemError('bad_tree', 'no question of a human with an answer')
  return rows.text(spoken[0], 'value'), rows.text(spoken[1], 'value')


LAYOUTS = {SOURCE: row_units.Layout(select, to_rows)}
BUILDERS = {SOURCE: SharegptCommand}

source_tasks.add(SOURCE, source_tasks.BuiltSource(SOURCE))
