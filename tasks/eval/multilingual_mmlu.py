"""Multilingual MMLU (Okapi): exam questions in 34 languages, 5-shot; see multilingual_mmlu.md."""

from collections.abc import Iterator

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import eval_releases, multiple_choice, row_columns
from aya_train.tasks.eval.multiple_choice import Item
from aya_train.tasks.languages import language_codes

RELEASE = eval_releases.Release(
  'multilingual_mmlu',
  'http://nlp.uoregon.edu/download/okapi-eval/datasets/m_mmlu',
  'alexandrainst/m_mmlu',
)
LANGUAGES = {
  code: language_codes.resolve(code).code
  for code in (
    *('ar', 'bn', 'ca', 'da', 'de', 'en', 'es', 'eu', 'fr', 'gu', 'hi', 'hr', 'hu', 'hy', 'id'),
    *('is', 'it', 'kn', 'ml', 'mr', 'nb', 'ne', 'nl', 'pt', 'ro', 'ru', 'sk', 'sr', 'sv', 'ta'),
    *('te', 'uk', 'vi', 'zh'),
  )
}
NOT_IN_THE_PAPER = ('eng', 'isl', 'nor')
_HUB = {'dev': 'train', 'validation': 'val', 'test': 'test'}
_FILES = {'dev': 'dev', 'validation': 'val', 'test': 'test'}
_OPTIONS = ('option_a', 'option_b', 'option_c', 'option_d')


def read(split: str, code: str, protocol: str) -> Iterator[Item]:
  """Questions of Okapi's JSON files, or of the hub's parquet.

  Examples come from the question's own subject, as in MMLU; the harness protocol takes the first
  ones of the file for all, as lm-evaluation-harness does.
  """
  patterns = (f'{code}_{_FILES[split]}.json', *eval_releases.hub_patterns(code, _HUB[split]))
  for where, record in eval_releases.rows(RELEASE, *patterns):
    identifier = row_columns.text(record, 'id', where)
    subject = str(record.get('subject') or identifier.partition('/')[0])
    question = row_columns.text(record, 'instruction', where)
    options = multiple_choice.options_of(record, where, _OPTIONS)
    yield Item(
      multiple_choice.worded(question, options),
      multiple_choice.letter(record, 'answer', where),
      identifier,
      subject,
      group='' if protocol == eval_tasks.HARNESS else subject,
    )


TASKS = multiple_choice.add(
  'multilingual_mmlu', read, LANGUAGES, shots=5, splits=('test', 'validation')
)
AYA_EVAL = tuple(
  task.name
  for task in TASKS
  if task.protocol == eval_tasks.T0 and task.language not in NOT_IN_THE_PAPER
)
