"""XCOPA: which of two sentences is the cause or the effect of a third; see xcopa.md."""

from collections.abc import Iterator

from aya_train.tasks.eval import (
  eval_releases,
  prompted_benchmark,
  promptsource_prompts,
  row_columns,
)
from aya_train.tasks.eval.row_columns import Located

RELEASE = eval_releases.Release(
  'xcopa', 'https://github.com/cambridgeltl/xcopa (folder data)', 'cambridgeltl/xcopa'
)
LANGUAGES = {
  'et': 'est',
  'ht': 'hat',
  'id': 'ind',
  'it': 'ita',
  'qu': 'que',
  'sw': 'swa',
  'ta': 'tam',
  'th': 'tha',
  'tr': 'tur',
  'vi': 'vie',
  'zh': 'zho',
}
_FILES = {'validation': 'val', 'test': 'test'}


def read(split: str, code: str) -> Iterator[Located]:
  """Rows premise, choice1, choice2, question, label, id of released files, in their order."""
  patterns = (f'{_FILES[split]}.{code}.jsonl', *eval_releases.hub_patterns(code, split))
  for where, record in eval_releases.rows(RELEASE, *patterns):
    row = {
      column: row_columns.text(record, column, where)
      for column in ('premise', 'choice1', 'choice2')
    }
    yield (
      where,
      {
        **row,
        'question': row_columns.choice(record, 'question', where, ('cause', 'effect')),
        'label': row_columns.integer(record, 'label', where, (0, 1)),
        'id': record.get('idx', ''),
      },
    )


TASKS = prompted_benchmark.add(
  'xcopa', read, LANGUAGES, promptsource_prompts.XCOPA, ('validation', 'test'), 'validation'
)
AYA_EVAL = prompted_benchmark.names(TASKS)
