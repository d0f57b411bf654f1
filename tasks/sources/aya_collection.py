"""The Aya Collection: 44 templated and 19 translated data sets.

Tasks `aya_collection_templated` and `.<dataset>`; `aya_collection_translated`, `.<dataset>` and
`.<dataset>.<ISO 639-3>`; and the translated part as Aya-101 pruned it,
`aya_collection_translated_pruned`, `.<dataset>` and `.<dataset>.<ISO 639-3>`: languages of the
101 only (so no Wolof), 3,000 random rows of each language and data set, all of Dolly.

Two repositories hold the same rows. CohereForAI/aya_collection has a folder for each data set,
CohereForAI/aya_collection_language_split one for each language; either can be read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import FilteredRowError, RowProblemError
from aya_train.tasks.languages import aya101
from aya_train.tasks.sources import aya_dataset

TEMPLATED = 'aya_collection_templated'
TRANSLATED = 'aya_collection_translated'
PRUNED = 'pruned'
SPLITS = ('train', 'validation', 'test')
_SPLIT_NAMES = {'dev': 'validation', 'val': 'validation', 'valid': 'validation'}

# Names in the column dataset_name, after `_plain`: the folders' names, and those under which the
# papers' tables and the released rows have the data sets.
_TEMPLATED_NAMES = {
  'arpa': 'armenian_instruct',
  'biomimicry': 'scirepeval',
  'farstail': 'persian_farstail',
  'hindi_article_generation': 'hindi_news',
  'hindi_article_summarization': 'hindi_headline',
  'imdb_dutch': 'dutch_imdb',
  'indicsentiment': 'indic_sentiment',
  'indicxparaphrase': 'indic_paraphrase',
  'lijnews': 'ligurian_news',
  'llm_japanese_dataset_vanilla': 'japanese_instruct',
  'llm_japanese_vanilla': 'japanese_instruct',
  'news_summary': 'bengali_news',
  'nusax': 'nusax_senti',
  'persian_instruct_pn': 'persian_instruct',
  'scb_mt_2020': 'thai_scb',
  'scirepeval_biomimicry': 'scirepeval',
  'seed_instruct_lij': 'seed_instruct',
  'thai_wiktionary': 'thai_wikitionary',
  'thirukkural': 'tamil_thirukkural',
  'turku': 'turku_paraphrase',
  'ua_gec': 'ukranian_gec',
  'urdu_news_gen_article': 'urdu_news_gen',
  'urdu_news_gen_headline': 'urdu_news_headline',
  'x_csqa': 'xcsqa',
}
_TRANSLATED_NAMES = {
  'dolly_v2': 'dolly',
  'flan_gem_wiki_lingua': 'flan_gem_wiki',
  'flan_cot_submix': 'flan_cot',
  'flan_unified_qa': 'flan_qa',
  'mlqa_en': 'mlqa',
  'nq_open': 'nqopen',
  'paws_wiki': 'paws',
}
_PARTS = {TEMPLATED: catalog.TEMPLATED, TRANSLATED: catalog.TRANSLATED}
_ALIASES = {TEMPLATED: _TEMPLATED_NAMES, TRANSLATED: _TRANSLATED_NAMES}


def _plain(name: str) -> str:
  """'AfriQA-inst' -> 'afriqa': lower case, '_' between words, without the releases' suffixes."""
  words = re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')
  return re.sub(r'_(inst|instruct|prompt|t)$', '', re.sub(r'_t$', '', words))


def _squeezed(name: str) -> str:
  return name.replace('_', '')


_KNOWN = {
  source: {
    **{_squeezed(_plain(alias)): part for alias, part in _ALIASES[source].items()},
    **{_squeezed(_plain(part)): part for part in parts},
  }
  for source, parts in _PARTS.items()
}


def dataset_of(name: str) -> tuple[str, str] | None:
  """Source and constituent of a dataset_name ('Mintaka-inst (T)'); None for the Aya Dataset.

  Translated data sets carry '(T)'. Those that exist in one of the two groups only need not.

  Raises:
    RowProblemError: unknown_dataset.
  """
  key = _squeezed(_plain(name))
  if key in ('ayadataset', 'aya'):
    return None
  parts = {source: part for source in _PARTS if (part := _part(key, _KNOWN[source])) is not None}
  if not parts:
    raise RowProblemError('unknown_dataset', f'{name!r} is no data set of the Aya Collection')
  translated = re.search(r'\(t\)\s*$', name.lower()) or name.lower().startswith('translated')
  source = TRANSLATED if translated and TRANSLATED in parts else next(iter(parts))
  return source, parts[source]


def _part(key: str, known: Mapping[str, str]) -> str | None:
  """The data set of a name: exactly, else the only one that the name begins with."""
  if key in known:
    return known[key]
  longer = {part for alias, part in known.items() if len(alias) > 4 and key.startswith(alias)}
  return longer.pop() if len(longer) == 1 else None


class _Collection(source_builder.SourceBuilder, skip_registration=True):  # type: ignore[call-arg]
  description = __doc__ or ''
  citation = aya_dataset.CITATION
  homepage = 'https://huggingface.co/datasets/CohereForAI/aya_collection'
  terms = 'Apache-2.0 (the collection; constituents may have terms of their own)'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


class AyaCollectionTemplated(_Collection):
  """44 data sets made instructions by templates of fluent speakers, a split for each language."""

  name = TEMPLATED
  source = TEMPLATED
  VERSION = tfds.core.Version(catalog.by_name(TEMPLATED).version)
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=part) for part in catalog.TEMPLATED
  ]


class AyaCollectionTranslated(_Collection):
  """19 data sets translated into 101 languages by NLLB, a split for each language."""

  name = TRANSLATED
  source = TRANSLATED
  VERSION = tfds.core.Version(catalog.by_name(TRANSLATED).version)
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=part) for part in catalog.TRANSLATED
  ]


def _select(
  source: str, files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  prefix = source.removeprefix('aya_collection_')
  wanted = options.constituents or _PARTS[source]
  by_dataset, by_language = [], []
  for file in files:
    *folders, base = file.name.split('/')
    split = re.split(r'[-.]', base)[0]
    if split not in SPLITS:
      continue
    folder = folders[-1] if folders else ''
    if folder.startswith(('templated_', 'translated_')) or folder == 'aya_dataset':
      part = folder.removeprefix(f'{prefix}_')
      if folder == f'{prefix}_{part}' and part in wanted:
        context = {'config': part, 'split': split}
        by_dataset.append(row_units.Input(file.name, file.size, context=context))
    else:
      by_language.append(row_units.Input(file.name, file.size, context={'split': split}))
  return by_dataset or by_language


def _to_rows(
  source: str, record: Any, item: row_units.Input, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  if not isinstance(record, Mapping):
    raise RowProblemError('wrong_columns', 'expected an object')
  part = item.context.get('config')
  if part is None:
    found = dataset_of(rows.text(record, 'dataset_name'))
    if found is None or found[0] != source:
      raise FilteredRowError('of another part of the collection')
    part = found[1]
    if options.constituents and part not in options.constituents:
      raise FilteredRowError('constituent not asked for')
  code = rows.optional(record, 'language', 'language_code')
  variety = rows.language(code, rows.optional(record, 'script'))
  # The row's own split counts: files of one language may mix them.
  split = rows.optional(record, 'split')
  split = _SPLIT_NAMES.get(split, split)
  if split not in SPLITS:
    split = item.context['split']
  task_type = rows.optional(record, 'task_type')
  yield (
    rows.Place(part, split, variety.code),
    rows.Row(
      rows.text(record, 'inputs'),
      rows.text(record, 'targets'),
      variety.code,
      variety.script,
      part,
      '' if task_type == '-' else task_type,
      f'{rows.optional(record, "id")}.{rows.optional(record, "template_id")}',
    ),
  )


def select_templated(files, options):
  """Files of templated data sets, in either repository's layout."""
  return _select(TEMPLATED, files, options)


def select_translated(files, options):
  """Files of translated data sets, in either repository's layout."""
  return _select(TRANSLATED, files, options)


def templated_rows(record, item, where, options):
  """The row of a record of a templated data set."""
  del where
  return _to_rows(TEMPLATED, record, item, options)


def translated_rows(record, item, where, options):
  """The row of a record of a translated data set."""
  del where
  return _to_rows(TRANSLATED, record, item, options)


def sample(config: str, split: str, code: str) -> tuple[str, int] | None:
  """The pruned split of a language: 3,000 rows of train; none for Dolly and beyond the 101."""
  if split != 'train' or config in catalog.UNSAMPLED or code not in aya101.BY_CODE:
    return None
  return f'{PRUNED}_{code}', catalog.SAMPLE_PER_LANGUAGE


LAYOUTS = {
  TEMPLATED: row_units.Layout(select_templated, templated_rows),
  TRANSLATED: row_units.Layout(select_translated, translated_rows, sample=sample),
}
BUILDERS = {TEMPLATED: AyaCollectionTemplated, TRANSLATED: AyaCollectionTranslated}


def _add_tasks() -> None:
  source_tasks.add(TEMPLATED, source_tasks.BuiltSource(TEMPLATED, catalog.TEMPLATED))
  for part in catalog.TEMPLATED:
    source_tasks.add(f'{TEMPLATED}.{part}', source_tasks.BuiltSource(TEMPLATED, (part,)))
  whole = tuple(f'{part}/train' for part in catalog.UNSAMPLED)
  pruned = {'train': (PRUNED, *whole), 'validation': ('validation',), 'test': ('test',)}
  for name, splits in ((TRANSLATED, None), (f'{TRANSLATED}_pruned', pruned)):
    known = catalog.TRANSLATED_LANGUAGES
    codes = known if splits is None else tuple(c for c in known if c in aya101.BY_CODE)
    among = None if splits is None else source_tasks.AYA_LANGUAGES
    source_tasks.add(
      name,
      source_tasks.BuiltSource(TRANSLATED, catalog.TRANSLATED, splits=splits, codes=among),
    )
    for part in catalog.TRANSLATED:
      source_tasks.add(
        f'{name}.{part}',
        source_tasks.BuiltSource(TRANSLATED, (part,), splits=splits, codes=among),
      )
      for code in codes:
        source_tasks.add(
          f'{name}.{part}.{code}',
          source_tasks.BuiltSource(TRANSLATED, (part,), splits=splits, codes=(code,)),
        )


_add_tasks()
