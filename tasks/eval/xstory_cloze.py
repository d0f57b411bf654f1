"""XStoryCloze: which of two sentences ends a story of four; see xstory_cloze.md."""

from collections.abc import Iterator

from aya_train.tasks.eval import (
  eval_releases,
  prompted_benchmark,
  promptsource_prompts,
  row_columns,
)
from aya_train.tasks.eval.row_columns import Located

RELEASE = eval_releases.Release(
  'xstory_cloze',
  'https://github.com/facebookresearch/fairseq/tree/main/examples/xglm (XStoryCloze.md)',
  'juletxara/xstory_cloze',
)
LANGUAGES = {
  'ar': 'ara',
  'en': 'eng',
  'es': 'spa',
  'eu': 'eus',
  'hi': 'hin',
  'id': 'ind',
  'my': 'mya',
  'ru': 'rus',
  'sw': 'swa',
  'te': 'tel',
  'zh': 'zho',
}
_FILES = {'validation': 'eval', 'train': 'train'}
_COLUMNS = {
  'InputStoryid': 'story_id',
  **{f'InputSentence{i}': f'input_sentence_{i}' for i in range(1, 5)},
  'RandomFifthSentenceQuiz1': 'sentence_quiz1',
  'RandomFifthSentenceQuiz2': 'sentence_quiz2',
  'AnswerRightEnding': 'answer_right_ending',
}
_TEXTS = (*(f'input_sentence_{i}' for i in range(1, 5)), 'sentence_quiz1', 'sentence_quiz2')


def read(split: str, code: str) -> Iterator[Located]:
  """Rows input_sentence_1 to _4, sentence_quiz1 and 2, answer_right_ending (1, 2), id.

  The English file has the columns of StoryCloze, which this one is a translation of.
  """
  name = _FILES[split]
  patterns = (
    f'spring2016.val.{code}.tsv.split_20_80_{name}.tsv',
    *eval_releases.hub_patterns(code, name),
    *eval_releases.hub_patterns(code, split),
  )
  for where, record in eval_releases.rows(RELEASE, *patterns):
    named = {_COLUMNS.get(column, column): value for column, value in record.items()}
    if '.tsv' in where:
      named = {column: row_columns.unquoted(value) for column, value in named.items()}
    yield (
      where,
      {
        **{column: row_columns.text(named, column, where) for column in _TEXTS},
        'answer_right_ending': row_columns.integer(named, 'answer_right_ending', where, (1, 2)),
        'id': named.get('story_id', where.rpartition(' ')[2]),
      },
    )


TASKS = prompted_benchmark.add(
  'xstory_cloze',
  read,
  LANGUAGES,
  promptsource_prompts.XSTORY_CLOZE,
  ('validation', 'train'),
  'validation',
)
# The paper has the ten languages into which the set was translated.
AYA_EVAL = prompted_benchmark.names(task for task in TASKS if task.language != 'eng')
