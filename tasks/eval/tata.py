"""TATA: a table told in a sentence, in nine languages, with several references; see tata.md.

Tasks `tata.<ISO 639-3>.describe`; mixtures `tata` and `tata.<ISO 639-3>`. Russian is a set of its
own, `ru.json`, and only in `test`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  eval_source,
  generated_tasks,
  row_columns,
)
from aya_train.tasks.metrics import (
  answer_language,
  answer_shape,
  references,
  translation,
)

LANGUAGES = ('ar', 'en', 'fr', 'ha', 'ig', 'pt', 'sw', 'yo')
RUSSIAN = 'ru'

RELEASE = eval_releases.Release(
  'tata', 'https://github.com/google-research/url-nlp, folder tata', repository='GEM/TaTA'
)

DESCRIBE = generated_tasks.Prompt(
  'describe', 'Describe the data of this table in one sentence in {name}.\n\n{table}'
)

_LANGUAGE = re.compile(r'-(\w\w)-\w+$')
_RELEASED = {'train': ('train',), 'validation': ('dev', 'validation'), 'test': ('test',)}


def read(split: str, code: str) -> Iterator[generated_tasks.Example]:
  """Tables of a language, linearised as released, with all that was written about them.

  Args:
    split: 'train', 'validation' or 'test'.
    code: ISO 639-1, as in example_id.
  """
  patterns = [
    pattern
    for name in _RELEASED[split]
    for pattern in (f'{name}.json', *eval_releases.hub_patterns('', name))
  ]
  if code == RUSSIAN:
    patterns = ['ru.json', *eval_releases.hub_patterns('', 'ru')]
  rows = eval_releases.rows(RELEASE, *patterns)
  examples = (_example(where, record) for where, record in rows)
  return generated_tasks.of_language(examples, generated_tasks.code_of(code), RELEASE)


def _example(where: str, record: row_columns.Record) -> generated_tasks.Example:
  identifier = row_columns.text(record, 'example_id', where)
  if (found := _LANGUAGE.search(identifier)) is None:
    raise row_columns.EvalDataError(
      f'{where}: expected an example_id such as AS75-sw-1, which says the language, got '
      f'{identifier!r}'
    )
  code = found[1]
  language = generated_tasks.code_of(code)
  return generated_tasks.Example(
    where,
    {
      'table': row_columns.text(record, 'linearized_input', where),
      'name': generated_tasks.name_of(language),
    },
    texts_of(record.get('table_text'), where),
    identifier,
    language,
    {'was_translated': str(record.get('was_translated', ''))},
  )


def texts_of(value: Any, where: str) -> list[str]:
  """References: a list of texts, or a text that holds a list as Python writes it.

  Raises:
    EvalDataError: neither.
  """
  if isinstance(value, str):
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      value = [value]
  if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
    raise row_columns.EvalDataError(f'{where}: expected a list of texts, got {value!r:.80}')
  return value


BENCHMARK = generated_tasks.Benchmark(
  'tata',
  read,
  (
    references.bound(translation.chrf, word_order=0),
    references.bound(translation.bleu, tokenize='13a'),
    answer_language.asked_language,
    answer_shape.lengths,
    answer_shape.repetition,
  ),
  metric='chrf',
  split='test',
  splits=('train', 'validation', 'test'),
  fields={'was_translated': eval_source.STRING},
)

TASKS = tuple(
  BENCHMARK.add(generated_tasks.code_of(code), DESCRIBE, code=code)
  for code in (*LANGUAGES, RUSSIAN)
)
eval_mixtures.add([eval_tasks.about(name) for name in TASKS])
