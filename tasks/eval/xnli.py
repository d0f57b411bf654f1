"""XNLI: whether one sentence follows from another; see xnli.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from aya_train.tasks.eval import (
  eval_releases,
  prompted_benchmark,
  promptsource_prompts,
  row_columns,
)
from aya_train.tasks.eval.row_columns import Located

RELEASE = eval_releases.Release(
  'xnli', 'https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip', 'facebook/xnli'
)
LANGUAGES = {
  'ar': 'ara',
  'bg': 'bul',
  'de': 'deu',
  'el': 'ell',
  'en': 'eng',
  'es': 'spa',
  'fr': 'fra',
  'hi': 'hin',
  'ru': 'rus',
  'sw': 'swa',
  'th': 'tha',
  'tr': 'tur',
  'ur': 'urd',
  'vi': 'vie',
  'zh': 'zho',
}
LABELS = ('entailment', 'neutral', 'contradiction')
_FILES = {'validation': 'dev', 'test': 'test'}


def label(record: Mapping[str, Any], column: str, where: str) -> int:
  """Index of a label in `LABELS`, given by name or by number; EvalDataError for another."""
  if isinstance(value := record.get(column), str) and not value.strip().isdigit():
    return LABELS.index(row_columns.choice(record, column, where, LABELS))
  return row_columns.integer(record, column, where, (0, 1, 2))


def read(split: str, code: str) -> Iterator[Located]:
  """Rows premise, hypothesis, label, id, of the zip (all languages in one file) or the hub's."""
  name = f'xnli.{_FILES[split]}'
  patterns = (*eval_releases.hub_patterns(code, split), f'{name}.tsv', f'{name}.jsonl')
  for where, record in eval_releases.rows(RELEASE, *patterns):
    if 'sentence1' in record:
      if record.get('language') != code:
        continue
      columns = ('sentence1', 'sentence2', 'gold_label', 'pairID')
    else:
      columns = ('premise', 'hypothesis', 'label', 'id')
    premise, hypothesis, answer, identifier = columns
    yield (
      where,
      {
        'premise': row_columns.text(record, premise, where),
        'hypothesis': row_columns.text(record, hypothesis, where),
        'label': label(record, answer, where),
        'id': record.get(identifier, where.rpartition(' ')[2]),
      },
    )


TASKS = prompted_benchmark.add(
  'xnli', read, LANGUAGES, promptsource_prompts.XNLI, ('validation', 'test'), 'validation'
)
AYA_EVAL = prompted_benchmark.names(TASKS)
