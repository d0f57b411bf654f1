"""XL-Sum: summaries of BBC articles in 43 languages; see xlsum.md.

Tasks `xlsum.<ISO 639-3>.<prompt>`; the mixtures `xlsum` and `xlsum.<ISO 639-3>` hold the first
prompt. Chinese in traditional and Serbian in Latin letters are apart, `xlsum.zho_Hant.<prompt>`.
"""

from __future__ import annotations

from collections.abc import Iterator

from aya_train.tasks import eval_tasks
from aya_train.tasks.eval import (
  eval_mixtures,
  eval_releases,
  eval_source,
  generated_tasks,
  row_columns,
)
from aya_train.tasks.metrics import answer_language, answer_shape, rouge

LANGUAGES = {
  'amharic': 'amh',
  'arabic': 'ara',
  'azerbaijani': 'aze',
  'bengali': 'ben',
  'burmese': 'mya',
  'chinese_simplified': 'zho',
  'english': 'eng',
  'french': 'fra',
  'gujarati': 'guj',
  'hausa': 'hau',
  'hindi': 'hin',
  'igbo': 'ibo',
  'indonesian': 'ind',
  'japanese': 'jpn',
  'kirundi': 'run',
  'korean': 'kor',
  'kyrgyz': 'kir',
  'marathi': 'mar',
  'nepali': 'nep',
  'oromo': 'gaz',
  'pashto': 'pus',
  'persian': 'pes',
  'pidgin': 'pcm',
  'portuguese': 'por',
  'punjabi': 'pan',
  'russian': 'rus',
  'scottish_gaelic': 'gla',
  'serbian_cyrillic': 'srp',
  'sinhala': 'sin',
  'somali': 'som',
  'spanish': 'spa',
  'swahili': 'swa',
  'tamil': 'tam',
  'telugu': 'tel',
  'thai': 'tha',
  'tigrinya': 'tir',
  'turkish': 'tur',
  'ukrainian': 'ukr',
  'urdu': 'urd',
  'uzbek': 'uzb',
  'vietnamese': 'vie',
  'welsh': 'cym',
  'yoruba': 'yor',
}
"""The release's names of the 43 -> ISO 639-3, that of the 101 where it is one."""

VARIETIES = {'chinese_traditional': ('zho', 'zho_Hant'), 'serbian_latin': ('srp', 'srp_Latn')}

RELEASE = eval_releases.Release(
  'xlsum',
  'https://github.com/csebuetnlp/xl-sum',
  repository='csebuetnlp/xlsum',
  revision='refs/convert/parquet',
)

PROMPTS = (
  generated_tasks.Prompt(
    'docsummary', 'Doc to summarize: {text}\nSummary in the same language as the doc:'
  ),
  generated_tasks.Prompt(
    'prevcontent', 'Content: {text}\nThe previous content can be summarized as follows:'
  ),
  generated_tasks.Prompt('tldr', '{text}\n\ntl;dr:'),
  generated_tasks.Prompt('goodsummary', '{text}\n\nA good summary of the text above:'),
)

_RELEASED = {'train': ('train',), 'validation': ('val', 'validation'), 'test': ('test',)}


def read(split: str, name: str) -> Iterator[generated_tasks.Example]:
  """Articles of a language with their summaries.

  Args:
    split: 'train', 'validation' or 'test'.
    name: the release's own of the language, 'scottish_gaelic'.
  """
  language = LANGUAGES[name] if name in LANGUAGES else VARIETIES[name][0]
  files = generated_tasks.find(
    RELEASE,
    name,
    [
      pattern
      for ending in _RELEASED[split]
      for pattern in (
        f'{name}_{ending}.jsonl',
        *eval_releases.hub_patterns(name, ending),
      )
    ],
    [
      pattern
      for ending in _RELEASED[split]
      for pattern in (f'*_{ending}.jsonl', f'*/{ending}/*.parquet', f'*/*{ending}*.parquet')
    ],
  )
  number = 0
  for file in files:
    for where, record in eval_releases.read(file):
      number += 1
      summary = record.get('summary', record.get('target'))
      yield generated_tasks.Example(
        where,
        {'text': row_columns.text(record, 'text', where)},
        (summary,) if isinstance(summary, str) else (),
        str(record.get('id') or record.get('gem_id') or number),
        language,
        {'title': str(record.get('title') or '')},
      )


BENCHMARK = generated_tasks.Benchmark(
  'xlsum',
  read,
  (rouge.rouge, answer_language.asked_language, answer_shape.lengths, answer_shape.repetition),
  metric='rougeLsum',
  split='validation',
  splits=('train', 'validation', 'test'),
  fields={'title': eval_source.STRING},
)

TASKS = tuple(
  BENCHMARK.add(code, prompt, name=name) for name, code in LANGUAGES.items() for prompt in PROMPTS
)
VARIETY_TASKS = tuple(
  BENCHMARK.add(code, prompt, variety=variety, name=name)
  for name, (code, variety) in VARIETIES.items()
  for prompt in PROMPTS
)
AYA_EVAL = tuple(f'xlsum.{code}.{PROMPTS[0].name}' for code in LANGUAGES.values())
eval_mixtures.add([eval_tasks.about(name) for name in AYA_EVAL])
