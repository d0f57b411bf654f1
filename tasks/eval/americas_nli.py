"""AmericasNLI: XNLI in ten languages of the Americas; see americas_nli.md."""

from collections.abc import Iterator

from aya_train.tasks.eval import (
  eval_releases,
  prompted_benchmark,
  promptsource_prompts,
  row_columns,
  xnli,
)
from aya_train.tasks.eval.row_columns import Located

RELEASE = eval_releases.Release(
  'americasnli',
  'https://github.com/abteen/americasnli (folder data/anli_final)',
  'nala-cub/americas_nli',
)
LANGUAGES = {
  'aym': 'aym',
  'bzd': 'bzd',
  'cni': 'cni',
  'gn': 'grn',
  'hch': 'hch',
  'nah': 'nah',
  'oto': 'oto',
  'quy': 'quy',
  'shp': 'shp',
  'tar': 'tar',
}
_FILES = {'validation': 'dev', 'test': 'test'}


def read(split: str, code: str) -> Iterator[Located]:
  """Rows premise, hypothesis, label, id, of a language's file or of the file of all."""
  name = _FILES[split]
  patterns = (
    f'{name}/{code}.tsv',
    *eval_releases.hub_patterns(code, split),
    f'{code}/{name}.tsv',
    f'anli.{name}.tsv',
    f'{name}.tsv',
  )
  for where, record in eval_releases.rows(RELEASE, *patterns):
    if record.get('language', code) != code:
      continue
    yield (
      where,
      {
        'premise': row_columns.text(record, 'premise', where),
        'hypothesis': row_columns.text(record, 'hypothesis', where),
        'label': xnli.label(record, 'label', where),
        'id': record.get('id', where.rpartition(' ')[2]),
      },
    )


TASKS = prompted_benchmark.add(
  'americas_nli', read, LANGUAGES, promptsource_prompts.XNLI, ('validation', 'test'), 'test'
)
