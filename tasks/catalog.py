"""The table of data sources: what each is called, where it is released, what is in it.

A row is facts only; the module of each source (`aya_train.tasks.sources.aya_dataset` ...) reads its
files and registers its tasks. Licences are in the table of `aya_train.tasks.rights.provenance`.

Row counts are those of the releases' cards. The cards disagree with each other (by two rows, for
the Aya Dataset), so nothing is checked against them.
"""

import dataclasses
from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
  return tuple(text.split())


TEMPLATED = _words("""
  afriqa afrisenti amharic_qa armenian_instruct bengali_news dutch_imdb hindi_headline hindi_news
  indic_paraphrase indic_sentiment indo_stories japanese_instruct joke_explaination ligurian_news
  masakhanews mintaka ntx_llm nusax_senti persian_farstail persian_instruct scirepeval
  seed_instruct soda tamil_stories tamil_thirukkural telugu_food telugu_jokes telugu_news
  telugu_poems telugu_riddles thai_pos thai_scb thai_usembassy thai_wikitionary turku_paraphrase
  ukranian_gec uner_llm urdu_news_category urdu_news_gen urdu_news_headline wiki_split xcsqa
  xlel_wd xwikis
""")
"""The 44 templated data sets of the Aya Collection, spelled as released."""

TRANSLATED = _words("""
  adversarial_qa cnn_dailymail dolly flan_coqa flan_cot flan_gem_wiki flan_lambada flan_qa hotpotqa
  joke_explaination mintaka mlqa nqopen paws piqa soda wiki_split wikiqa xlel_wd
""")
"""The 19 translated data sets of the Aya Collection, spelled as released."""

DATA_PROVENANCE: Mapping[str, str] = {
  'rlhf_anthropic_hh': 'Anthropic HH-RLHF',
  'commitpack_ft': 'CommitPackFT',
  'dolly_15k': 'Dolly 15k',
  'flan_cot': 'Flan Collection (Chain-of-Thought)',
  'flan_dialog': 'Flan Collection (Dialog)',
  'flan_2021': 'Flan Collection (Flan 2021)',
  'flan_p3': 'Flan Collection (P3)',
  'flan_sni': 'Flan Collection (Super-NaturalInstructions)',
  'joke_explanation': 'Joke Explanation',
  'oig': 'OIG',
  'open_assistant': 'Open Assistant',
  'octopack_oa': 'Open Assistant OctoPack',
  'tasksource_instruct': 'Tasksource Instruct',
  'tasksource_symboltuning': 'Tasksource Symbol-Tuning',
  'xp3x': 'xP3x',
  'starcoder_selfinstruct': 'StarCoder Self-Instruct',
}
"""The 16 constituents: folder on the hub -> collection, as the audit's summaries name it."""

EVALUATION_SUITE = ('aya_human_annotated', 'dolly_human_edited', 'dolly_machine_translated')

SAMPLE_PER_LANGUAGE = 3_000
"""Rows that the pruned translated part keeps of a language and data set (AYA section 2)."""

UNSAMPLED = ('dolly',)
"""Translated data sets of which the pruned part keeps everything (AYA section 2)."""

ROWS_PER_PROVENANCE_SET = 20_000
"""Rows that Data Provenance keeps of one audited data set (AYA section 2.1)."""

# Languages into which the Aya Collection and ShareGPT-Command were translated: the card of the
# Aya evaluation suite lists them for dolly_machine_translated. 94 are of the 101.
TRANSLATED_LANGUAGES = _words("""
  ace afr amh ara aze bel ben bjn bul cat ceb ces cym dan deu ell eng epo est eus fin fra gla gle
  glg guj hat hau heb hin hun hye ibo ind isl ita jav jpn kan kas kat kau kaz khm kir kor kur lao
  lav lit ltz mal mar min mkd mlg mlt mni mon mri msa mya nep nld nor nso pes pol por pus ron rus
  sin slk slv smo sna snd som sot spa sqi srp sun swa swe tam taq tel tgk tha tur ukr urd uzb vie
  xho yid yor zho zul
""")

# The card of the Aya Dataset, Arabic varieties gathered under ara. Wolof is not of the 101.
ANNOTATED_LANGUAGES = _words("""
  amh ara ben ceb dan deu ell eng eus fil fin fra gle guj hat hau hin hun ibo ind ita jav jpn kan
  kir kor kur lit mal mar mlg msa mya nep nld nso nya pan pes pol por pus rus sin sna snd som spa
  sqi srp sun swa swe tam tel tha tur ukr urd vie wol xho yor zho zul
""")

XP3_LANGUAGES = _words("""
  ak ar as bm bn ca code en es eu fon fr gu hi id ig ki kn lg ln ml mr ne nso ny or pa pt rn rw sn
  st sw ta te tn ts tum tw ur vi wo xh yo zh zu
""")
"""The 46 folders of xP3, xP3mt and xP3all: ISO 639-1 where there is one, and `code`."""


@dataclasses.dataclass(frozen=True)
class Source:
  """One row of the table.

  Attributes:
    name: of the tasks, the TFDS builder and `aya-train prepare NAME`.
    title: as its authors write it.
    repository: on the Hugging Face hub; None if nothing is released there.
    version: of our builder: what a row becomes. The release is the hub revision in the manifest.
    layout: where its files are, in words.
    splits: of its tasks.
    constituents: data sets with a task of their own, `NAME.<constituent>`.
    rows: rows of the release, by split or constituent, where a card says.
  """

  name: str
  title: str
  repository: str | None
  version: str
  layout: str
  splits: tuple[str, ...] = ('train',)
  constituents: tuple[str, ...] = ()
  rows: Mapping[str, int] = dataclasses.field(default_factory=dict)


_COLLECTION = 'CohereForAI/aya_collection'
_COLLECTION_LAYOUT = '<config>/<split>-*.parquet; or one folder a language, then <split>-*.parquet'

SOURCES: tuple[Source, ...] = (
  Source(
    'cldr',
    'CLDR instruction set',
    None,
    '1.0.0',
    'built from Babel, nothing is read',
    splits=('train', 'validation', 'test'),
    rows={'train': 24_735, 'validation': 3_070, 'test': 3_079},
  ),
  Source(
    'aya_dataset',
    'Aya Dataset',
    'CohereForAI/aya_dataset',
    '1.0.0',
    'data/<split>-*.parquet; demographics in demographics/train-*.parquet',
    splits=('train', 'test'),
    rows={'train': 202_364, 'test': 1_750, 'demographics': 1_456},
  ),
  Source(
    'aya_collection_templated',
    'Aya Collection, templated',
    _COLLECTION,
    '1.0.0',
    f'templated_* of {_COLLECTION_LAYOUT}',
    splits=('train', 'validation', 'test'),
    constituents=TEMPLATED,
    rows={'all': 18_900_000},
  ),
  Source(
    'aya_collection_translated',
    'Aya Collection, translated',
    _COLLECTION,
    '1.0.0',
    f'translated_* of {_COLLECTION_LAYOUT}',
    splits=('train', 'validation', 'test'),
    constituents=TRANSLATED,
    rows={
      'all': 494_000_000,
      'cnn_dailymail': 14_982_960,
      'flan_cot': 11_029_200,
      'dolly': 1_600_000,
    },
  ),
  Source(
    'xp3x',
    'xP3x',
    'CohereForAI/xP3x',
    '1.0.0',
    'data/<FLORES code or code>/xp3_{dataset}_{config}_{split}_{template}.jsonl',
    rows={'all': 680_000_000, 'pruned': 168_000_000},
  ),
  Source(
    'xp3',
    'xP3',
    'bigscience/xP3',
    '1.0.0',
    '<language>/merged_<language>.jsonl, or <language>/xp3_*.jsonl',
    rows={'all': 81_000_000},
  ),
  Source(
    'xp3mt',
    'xP3mt',
    'bigscience/xP3mt',
    '1.0.0',
    '<language>/merged_<language>.jsonl, or <language>/xp3_*.jsonl',
    rows={'all': 81_000_000},
  ),
  Source(
    'xp3all',
    'xP3all',
    'bigscience/xP3all',
    '1.0.0',
    '<language>/merged_<language>.jsonl, or <language>/xp3_*.jsonl',
    rows={'all': 83_000_000},
  ),
  Source(
    'p3',
    'P3, repreprocessed',
    'Muennighoff/P3',
    '1.0.0',
    'p31t0_<split>.zip or .jsonl, split train or validation; or p3_<task>_<split>.jsonl',
    splits=('train', 'validation'),
  ),
  Source(
    'data_provenance',
    'Data Provenance, commercially verified licences',
    'DataProvenanceInitiative/Commercially-Verified-Licenses',
    '1.0.0',
    'data/<folder>/*.jsonl, or message lists in <folder>/*.jsonl.gz',
    constituents=tuple(DATA_PROVENANCE),
    rows={'all': 1_650_000},
  ),
  Source(
    'sharegpt_command',
    'ShareGPT-Command',
    None,
    '1.0.0',
    'user supplied: *.jsonl, *.jsonl.gz or *.parquet with inputs, targets and language',
    rows={'train': 6_800_000},
  ),
  Source(
    'aya_evaluation_suite',
    'Aya Evaluation Suite',
    'CohereForAI/aya_evaluation_suite',
    '1.0.0',
    '<config>/test-*.parquet',
    splits=('test',),
    constituents=EVALUATION_SUITE,
    rows={
      'aya_human_annotated': 1_750,
      'dolly_human_edited': 1_200,
      'dolly_machine_translated': 23_800,
    },
  ),
)

BY_NAME: dict[str, Source] = {source.name: source for source in SOURCES}

NOT_READ: Mapping[str, str] = {
  'xp3megds': "xP3megds is xP3 as Megatron-DeepSpeed's binaries (.bin, .idx) in the token ids of "
  'BLOOM, which mT5 does not share, and is not read. The same rows are released as text: '
  '`aya-train prepare xp3`, task and source `xp3`',
}
"""Releases of the same family that are not read -> why, and what to read in their place."""


def why_not_read(name: str) -> str | None:
  """What to tell somebody who names a release that is not read; None for all other names."""
  return NOT_READ.get(name.partition('.')[0].lower().replace('-', '').replace('_', ''))


def by_name(name: str) -> Source:
  """The row of a source; ValueError when there is none, or none that is read."""
  if (why := why_not_read(name)) is not None:
    raise ValueError(why)
  if name not in BY_NAME:
    raise ValueError(f'no source {name!r}; expected one of {", ".join(BY_NAME)}')
  return BY_NAME[name]
