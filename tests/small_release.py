"""Every open source of the Aya mixtures as small files of the released layouts.

    python -m tests.small_release FOLDER [--sharegpt]

writes FOLDER/<source>/, each of which `aya-train prepare <source> --data_dir FOLDER/<source>`
reads. The texts are instructions and answers of the CLDR set in its languages, single or several
joined, so that lengths differ as in the releases: about a fifth of the answers are long, a few rows
are longer than 1,024 tokens. What stands in a release's test split is of CLDR's test split. Nothing
is random.
"""

import argparse
import functools
import hashlib
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence

from aya_train.tasks import catalog
from aya_train.tasks.cldr import cldr_rows
from aya_train.tasks.languages import aya101
from tests.tasks import released

Pair = tuple[str, str]

LANGUAGES = ('amh', 'ara', 'eng', 'fra', 'hin', 'rus', 'swa', 'tel', 'tha', 'vie', 'yor', 'zho')
"""Those that sources of many languages have here."""

# How many instructions each row joins, in turns. The eighteenfold ones have answers of 64 tokens or
# more in the vocabulary of the CLDR set.
JOINED = (1, 1, 18, 3, 1)
VERY_LONG = 160

# CLDR has no text of these, which are not of the 101: related languages stand in for them.
_STAND_INS = {'ace': 'ind', 'lij': 'ita'}
_ARABIC = ('arb', 'arz')

_TEMPLATED = {
  'amharic_qa': ('amh',),
  'armenian_instruct': ('hye',),
  'bengali_news': ('ben',),
  'dutch_imdb': ('nld',),
  'hindi_headline': ('hin',),
  'hindi_news': ('hin',),
  'indic_paraphrase': ('hin', 'tel'),
  'indic_sentiment': ('hin', 'tam'),
  'indo_stories': ('ind',),
  'japanese_instruct': ('jpn',),
  'ligurian_news': ('lij',),
  'nusax_senti': ('ind', 'ace'),
  'persian_farstail': ('pes',),
  'persian_instruct': ('pes',),
  'seed_instruct': ('lij',),
  'tamil_stories': ('tam',),
  'tamil_thirukkural': ('tam',),
  'telugu_food': ('tel',),
  'telugu_jokes': ('tel',),
  'telugu_news': ('tel',),
  'telugu_poems': ('tel',),
  'telugu_riddles': ('tel',),
  'thai_pos': ('tha',),
  'thai_scb': ('tha', 'eng'),
  'thai_usembassy': ('tha',),
  'thai_wikitionary': ('tha',),
  'turku_paraphrase': ('fin',),
  'ukranian_gec': ('ukr',),
  'urdu_news_category': ('urd',),
  'urdu_news_gen': ('urd',),
  'urdu_news_headline': ('urd',),
  'afriqa': ('yor', 'swa'),
  'masakhanews': ('amh', 'yor', 'swa'),
  'mintaka': ('ara', 'fra', 'hin'),
  'xcsqa': ('rus', 'vie', 'zho'),
}
"""Languages of templated data sets; the others are English here."""

_WITH_VALIDATION = ('mintaka', 'mlqa', 'soda', 'xlel_wd', 'masakhanews', 'hotpotqa', 'nqopen')
_WITH_VERY_LONG = ('cnn_dailymail', 'xwikis', 'xlel_wd')

# Data set, config, split, template; then the same for English alone. The last of each are left out.
_XP3X = (
  ('GEM/xlsum', 'all', 'train', 'docsummary'),
  ('GEM/xlsum', 'all', 'train', 'xp3longgenarticle'),
  ('GEM/wiki_lingua', 'all', 'train', 'article_summary_en'),
  ('Helsinki-NLP/tatoeba_mt', 'all', 'test', 'translate'),
  ('facebook/flores', 'all', 'dev', 'command-x-x'),
  ('clue', 'c3', 'train', 'answer'),
  ('GEM/wiki_lingua', 'all', 'train', 'write_abstract_en'),
  ('Muennighoff/multi_eurlex', 'all', 'train', 'version-en-x'),
  ('GEM/xlsum', 'all', 'validation', 'docsummary'),
  ('xcopa', 'all', 'train', 'exercise'),
)
_XP3X_ENGLISH = (
  ('super_glue', 'boolq', 'train', 'after_reading'),
  ('cos_e', 'v1.11', 'train', 'question_option_description_text'),
  ('super_glue', 'copa', 'train', 'exercise'),
)

_PROVENANCE = {
  'rlhf_anthropic_hh': ('anthropic_hhrlhf',),
  'commitpack_ft': ('commitpackft-python',),
  'dolly_15k': ('dolly-openqa', 'dolly-brainstorming'),
  'flan_cot': ('fc-cot-cot_gsm8k', 'fc-cot-stream_creak'),
  'flan_dialog': ('fc-dialog-wiki_dialog',),
  'flan_2021': ('fc-flan-arc_challenge',),
  'flan_p3': ('fc-p3-cos_e', 'fc-p3-adversarial_qa'),
  'flan_sni': ('fc-sni-xcsr',),
  'joke_explanation': ('joke-explanation',),
  'oig': ('oig-unified_abstract_infill',),
  'open_assistant': ('oasst-en', 'oasst-ru', 'oasst-fr'),
  'octopack_oa': ('oasst-en-octopack',),
  'tasksource_instruct': ('tsi-clue',),
  'tasksource_symboltuning': ('tsy-clue',),
  'xp3x': ('xp3x-yor_Latn',),
  'starcoder_selfinstruct': ('starcoder-self-instruct',),
}
_TREES = ('open_assistant', 'octopack_oa')
_CODE = ('commitpack_ft', 'starcoder_selfinstruct')


def write(root: pathlib.Path, *, sharegpt: bool = False) -> dict[str, pathlib.Path]:
  """Writes `root/<source>/` for each open source but cldr, which needs no files.

  Args:
    root: a folder, made if it is not there; files of an earlier call are written again.
    sharegpt: also sharegpt_command, in the forms that a user supplies.

  Returns:
    Name of the source -> its folder.
  """
  makers = {
    'aya_dataset': _aya_dataset,
    'aya_collection_templated': _templated,
    'aya_collection_translated': _translated,
    'xp3x': _xp3x,
    'xp3': _xp3_merged,
    'xp3mt': _xp3_merged,
    'xp3all': _xp3_apart,
    'p3': _p3,
    'data_provenance': _data_provenance,
    'aya_evaluation_suite': _evaluation_suite,
  }
  if sharegpt:
    makers['sharegpt_command'] = _sharegpt
  folders = {name: pathlib.Path(root) / name for name in makers}
  for name, make in makers.items():
    make(folders[name])
  return folders


@functools.cache
def _rows(code: str, split: str) -> tuple[Pair, ...]:
  language = aya101.by_code(_STAND_INS.get(code, code))
  rows = cldr_rows.language_rows(language)
  return tuple((row.inputs, row.targets) for row in rows if row.split == split)


def texts(name: str, code: str, count: int, split: str = 'train', longest: int = 0) -> list[Pair]:
  """Different instructions with their answers in a language.

  Args:
    name: other texts, or the same in another order, for each.
    code: ISO 639-3.
    count: how many; at most what the CLDR set has in the split.
    split: of the CLDR set.
    longest: instructions that the last one joins; 0: as many as its turn says.
  """
  rows = _rows(code, split)
  if count > len(rows):
    raise ValueError(f'{count} texts of {code} in {split}: there are {len(rows)}')
  start = int.from_bytes(hashlib.sha256(f'{name}/{code}'.encode()).digest()[:4], 'little')
  sizes = list(itertools.islice(itertools.cycle(JOINED), count))
  if longest:
    sizes[-1] = longest
  return [
    _joined([rows[(start + i + 7 * j) % len(rows)] for j in range(size)])
    for i, size in enumerate(sizes)
  ]


def _joined(rows: Sequence[Pair]) -> Pair:
  if len(rows) == 1:
    return rows[0]
  numbered = [
    [f'{i}. {text}' for i, text in enumerate(column, 1)] for column in zip(*rows, strict=True)
  ]
  return '\n'.join(['Answer each of these.', *numbered[0]]), '\n'.join(numbered[1])


def _code(name: str, count: int) -> list[Pair]:
  """Instructions for small Python functions."""
  offset = hashlib.sha256(name.encode()).digest()[0]
  return [
    (
      f'Write a Python function that adds up the multiples of {k} below a limit.',
      f'def multiples_of_{k}(limit):\n  """Sum of the multiples of {k} below limit."""\n'
      f'  return sum(range({k}, limit, {k}))',
    )
    for k in range(2 + offset, 2 + offset + count)
  ]


def _script(code: str) -> str:
  # CLDR's Chinese is simplified, which the releases tell from traditional.
  return 'Hans' if code == 'zho' else aya101.by_code(_STAND_INS.get(code, code)).script_code


def _shards(folder: pathlib.Path, split: str, rows: Sequence, count: int) -> None:
  for i in range(count):
    released.parquet(folder / f'{split}-{i:05d}-of-{count:05d}.parquet', rows[i::count])


def _annotated(code: str, split: str, count: int) -> Iterator[dict[str, str]]:
  """The Aya Dataset's rows of a language, with its codes and names of varieties."""
  varieties = {
    'ara': (('arb', 'Standard Arabic'), ('arz', 'Egyptian Arabic')),
    'zho': (('zho', 'Simplified Chinese'),),
  }.get(code, ((code, aya101.by_code(code).name),))
  longest = VERY_LONG if code in ('eng', 'yor') and split == 'train' else 0
  pairs = texts('aya_dataset', code, count, split, longest)
  for i, (variety, name) in enumerate(varieties):
    own = pairs[i :: len(varieties)]
    kind = 're-annotations' if i else 'original-annotations'
    rows = released.annotated(variety, name, len(own), annotation_type=kind)
    yield from released.filled(rows, own)


def _aya_dataset(folder: pathlib.Path) -> None:
  train = [row for code in LANGUAGES for row in _annotated(code, 'train', 30)]
  test = [
    row for code in ('ara', 'eng', 'por', 'tel', 'tur', 'yor', 'zho') for row in _suite_rows(code)
  ]
  _shards(folder / 'data', 'train', train, 2)
  _shards(folder / 'data', 'test', test, 1)
  people = [
    {
      'user_id': f'{i:064x}',
      'age_range': [20 + i, 25 + i],
      'gender': ('female', 'male', None)[i % 3],
      'country': None,
      'languages': [aya101.by_code(code).name],
      'dialects': None,
    }
    for i, code in enumerate(LANGUAGES)
  ]
  _shards(folder / 'demographics', 'train', people, 1)


def _suite_rows(code: str) -> Iterator[dict[str, str]]:
  yield from _annotated(code, 'test', 12)


def _collected(
  dataset: str, name: str, code: str, pairs: Sequence[Pair], split: str, **more: object
) -> list[dict]:
  """Rows of the Aya Collection; Arabic has the code of its standard variety there."""
  code, script = _ARABIC[0] if code == 'ara' else code, _script(code)
  task_type = ('question-answering', 'generation', 'summarization')[len(dataset) % 3]
  rows = released.collected(name, code, script, len(pairs), split, task_type=task_type, **more)
  return released.filled(rows, pairs)


def _collection(
  folder: pathlib.Path, dataset: str, name: str, codes: Sequence[str], count: int
) -> None:
  splits = {'train': count}
  if dataset in _WITH_VALIDATION:
    splits |= {'validation': 3, 'test': 3}
  for split, rows in splits.items():
    longest = VERY_LONG if dataset in _WITH_VERY_LONG and split == 'train' else 0
    found = [
      row
      for code in codes
      for row in _collected(dataset, name, code, texts(dataset, code, rows, split, longest), split)
    ]
    _shards(folder, split, found, 1)


def _templated(folder: pathlib.Path) -> None:
  for dataset in catalog.TEMPLATED:
    codes = _TEMPLATED.get(dataset, ('eng',))
    _collection(folder / f'templated_{dataset}', dataset, f'{dataset}-inst', codes, 24)


def _translated(folder: pathlib.Path) -> None:
  for dataset in catalog.TRANSLATED:
    codes = (*LANGUAGES, 'ace')
    _collection(folder / f'translated_{dataset}', dataset, f'{dataset} (T)', codes, 10)


def _xp3x(folder: pathlib.Path) -> None:
  for code in LANGUAGES:
    place = aya101.by_code(code).xp3x[0]
    for dataset, config, split, template in _XP3X + (_XP3X_ENGLISH if code == 'eng' else ()):
      row = (place, dataset, config, split, template)
      longest = VERY_LONG if (code, template) == ('vie', 'xp3longgenarticle') else 0
      pairs = texts(f'xp3x/{dataset}/{template}', code, 8, 'train', longest)
      released.prompted_file(folder, *row, len(pairs), pairs)


def _xp3_folders() -> dict[str, str]:
  """Language -> its folder in xP3, for our languages that xP3 has."""
  return {code: place for code in LANGUAGES if (place := aya101.by_code(code).xp3)}


def _xp3_rows(folder: pathlib.Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
  rows = {place: texts(folder.name, code, 24) for code, place in _xp3_folders().items()}
  for place, pairs in {**rows, 'code': _code(folder.name, 12)}.items():
    yield place, [{'inputs': inputs, 'targets': targets} for inputs, targets in pairs]


def _xp3_merged(folder: pathlib.Path) -> None:
  for place, rows in _xp3_rows(folder):
    released.jsonl(folder / place / f'merged_{place}.jsonl', rows)


def _xp3_apart(folder: pathlib.Path) -> None:
  for place, rows in _xp3_rows(folder):
    for i, name in enumerate(('GEM_xlsum_train_tldr', 'xnli_validation_can_we_infer')):
      released.jsonl(folder / place / f'xp3_{name}.jsonl', rows[i::2])


def _p3(folder: pathlib.Path) -> None:
  rows = [{'inputs': a, 'targets': b} for a, b in texts(folder.name, 'eng', 30)]
  released.zipped(folder / 'p31t0_train.zip', {'p31t0_train.jsonl': rows[:24]})
  released.jsonl(folder / 'p31t0_validation.jsonl', rows[24:])


def _data_provenance(folder: pathlib.Path) -> None:
  for part, identifiers in _PROVENANCE.items():
    conversations, flat = [], []
    for identifier in identifiers:
      code = {'oasst-ru': 'rus', 'oasst-fr': 'fra', 'xp3x-yor_Latn': 'yor'}.get(identifier, 'eng')
      pairs = _code(identifier, 20) if part in _CODE else texts(identifier, code, 30)
      conversations += [released.tree(identifier, pairs[i : i + 3]) for i in range(0, 30, 3)]
      flat += released.labelled(identifier, pairs)
    if part in _TREES:
      released.jsonl(folder / part / f'{part}.jsonl.gz', conversations)
    else:
      released.jsonl(folder / 'data' / part / f'{part}.jsonl', flat)


def _evaluation_suite(folder: pathlib.Path) -> None:
  codes = {
    'aya_human_annotated': ('ara', 'eng', 'por', 'tel', 'tur', 'yor', 'zho'),
    'dolly_human_edited': ('ara', 'fra', 'hin', 'rus', 'spa', 'srp'),
    'dolly_machine_translated': LANGUAGES,
  }
  for config, chosen in codes.items():
    rows: list[dict] = []
    for code in chosen:
      if config == 'aya_human_annotated':  # the Aya Dataset's test split
        pairs = [(row['inputs'], row['targets']) for row in _suite_rows(code)]
      else:
        pairs = texts(config, code, 6, 'test')
      more = {} if config == 'aya_human_annotated' else {'source_id': 6060}
      released_code = _ARABIC[0] if code == 'ara' else code
      rows += released.evaluated(released_code, _script(code), pairs, **more)
    _shards(folder / config, 'test', rows, 1)


def _sharegpt(folder: pathlib.Path) -> None:
  flat, turns = [], []
  for code in LANGUAGES:
    pairs = texts('sharegpt', code, 20)
    flat += [
      {'id': f'{code}-{i}', 'inputs': inputs, 'targets': targets, 'language': code}
      for i, (inputs, targets) in enumerate(pairs[:15])
    ]
    turns += [
      {
        'id': f'{code}-{i}',
        'language': code,
        'conversations': [{'from': 'human', 'value': inputs}, {'from': 'gpt', 'value': targets}],
      }
      for i, (inputs, targets) in enumerate(pairs[15:], 15)
    ]
  released.jsonl(folder / 'flat.jsonl', flat)
  released.jsonl(folder / 'conversations.jsonl.gz', turns)


def main(argv: Sequence[str]) -> None:
  parser = argparse.ArgumentParser(prog='python -m tests.small_release', description=__doc__)
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--sharegpt', action='store_true', help='also sharegpt_command')
  args = parser.parse_args(argv)
  for name, folder in write(args.folder, sharegpt=args.sharegpt).items():
    files = [path for path in folder.rglob('*') if path.is_file()]
    print(f'{name}: {len(files)} files, {sum(p.stat().st_size for p in files):,} bytes')


if __name__ == '__main__':
  main(sys.argv[1:])
