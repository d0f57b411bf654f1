"""Global-MMLU and Global-MMLU Lite: MMLU with labels of cultural sensitivity; see global_mmlu.md.

Tasks `global_mmlu.LANG` and `global_mmlu_lite.LANG` have all questions; those that end in
`.culturally_sensitive` and `.culturally_agnostic` the ones that annotators labelled so.
"""

import functools
from collections.abc import Iterator

from aya_train.tasks.eval import eval_releases, multiple_choice, row_columns
from aya_train.tasks.eval.multiple_choice import Item
from aya_train.tasks.eval.row_columns import EvalDataError, Record
from aya_train.tasks.languages import language_codes

FULL = eval_releases.Release(
  'global_mmlu',
  'https://huggingface.co/datasets/CohereForAI/Global-MMLU',
  'CohereForAI/Global-MMLU',
)
LITE = eval_releases.Release(
  'global_mmlu_lite',
  'https://huggingface.co/datasets/CohereForAI/Global-MMLU-Lite',
  'CohereForAI/Global-MMLU-Lite',
)
SUBSETS = {'CS': 'culturally_sensitive', 'CA': 'culturally_agnostic'}
FULL_LANGUAGES = {
  code: language_codes.resolve(code).code
  for code in (
    *('am', 'ar', 'bn', 'cs', 'de', 'el', 'en', 'es', 'fa', 'fil', 'fr', 'ha', 'he', 'hi', 'id'),
    *('ig', 'it', 'ja', 'ko', 'ky', 'lt', 'mg', 'ms', 'ne', 'nl', 'ny', 'pl', 'pt', 'ro', 'ru'),
    *('si', 'sn', 'so', 'sr', 'sv', 'sw', 'te', 'tr', 'uk', 'vi', 'yo', 'zh'),
  )
}
LITE_LANGUAGES = {
  code: language_codes.resolve(code).code
  for code in (
    *('ar', 'bn', 'cy', 'de', 'en', 'es', 'fr', 'hi', 'id', 'it', 'ja', 'ko', 'my', 'pt', 'sq'),
    *('sw', 'tl', 'yo', 'zh'),
  )
}
_OPTIONS = ('option_a', 'option_b', 'option_c', 'option_d')
_PROMPTS = 'prompts'  # of the files of SEA-HELM, which hold a question in a list


def read(split: str, code: str, protocol: str, *, release: eval_releases.Release) -> Iterator[Item]:
  """Questions of the hub's files, or of those that SEA-HELM keeps; examples are of the subject."""
  del protocol
  patterns = (
    f'{release.folder}_{code}_{split}.jsonl',
    *eval_releases.hub_patterns(code, split),
  )
  for where, record in eval_releases.rows(release, *patterns):
    flat = _flat(record, where) if _PROMPTS in record else record
    if not str(flat.get('question') or '').strip():
      row_columns.leave_out(where, 'it has no question')
      continue
    subject = row_columns.text(flat, 'subject', where)
    question = row_columns.text(flat, 'question', where)
    options = multiple_choice.options_of(flat, where, _OPTIONS)
    yield Item(
      multiple_choice.worded(question, options),
      multiple_choice.letter(flat, 'answer', where),
      str(flat.get('sample_id', where.rpartition(' ')[2])),
      subject,
      group=subject,
      subset=SUBSETS.get(str(flat.get('cultural_sensitivity_label')), ''),
    )


def _flat(record: Record, where: str) -> Record:
  prompts, metadata = record[_PROMPTS], record.get('metadata')
  if not isinstance(metadata, dict) or not isinstance(prompts, list) or len(prompts) != 1:
    raise EvalDataError(f'{where}: expected an object metadata and one object in {_PROMPTS!r}')
  return {**prompts[0], **metadata, 'answer': record.get('label')}


TASKS = [
  task
  for release, languages in ((FULL, FULL_LANGUAGES), (LITE, LITE_LANGUAGES))
  for task in multiple_choice.add(
    release.folder,
    functools.partial(read, release=release),
    languages,
    shots=5,
    splits=('test', 'dev'),
    subsets=tuple(SUBSETS.values()),
  )
]
