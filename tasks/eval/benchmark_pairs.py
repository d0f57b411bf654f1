"""Benchmarks as pairs for sentence encoders: what is the same, and which passage has the answer.

  sib200.<ISO>.pairs       sentences and their English, joined on index_id
  nusax.<ISO>.pairs        reviews and their Indonesian
  tatoeba.<ISO>.pairs      sentences and their English, as LASER released them
  xquad.<ISO>.retrieval    questions and the paragraph that has the answer
  tydiqa.<ISO>.retrieval   the same, of TyDi QA
  afriqa.<ISO>.retrieval   questions and the passage, in English or French

Mixtures `sib200.pairs`, `xquad.retrieval` ... have all languages, balanced by temperature. Files
are those that the benchmarks' tasks read (EVAL_DATA_DIR).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import seqio

from aya_train.tasks.eval import (
  afriqa,
  eval_releases,
  flores_codes,
  generated_tasks,
  nusax,
  row_columns,
  sib200,
  translation_pairs,
  tydiqa,
  xquad,
)
from aya_train.tasks.languages import language_codes
from aya_train.tasks.retrieval import pair_tasks
from aya_train.tasks.retrieval.text_pairs import TextPair
from aya_train.tasks.rights import provenance

TATOEBA = eval_releases.Release(
  'tatoeba', 'https://github.com/facebookresearch/LASER, data/tatoeba/v1'
)
TEMPERATURE = 0.3


def _tatoeba(split: str, code: str) -> Iterator[TextPair]:
  """Lines of tatoeba.<code>-eng.<code> and .eng, of which the same line is the same sentence."""
  del split
  sides = []
  for side in (code, 'eng'):
    found = list(eval_releases.lines(TATOEBA, f'tatoeba.{code}-eng.{side}'))
    sides.append(found)
  if len(sides[0]) != len(sides[1]):
    raise row_columns.EvalDataError(
      f'{sides[0][0][0]}: {len(sides[0]):,} sentences, and {len(sides[1]):,} in English; both '
      'files must have the same'
    )
  for (where, one), (_, other) in zip(*sides, strict=True):
    yield TextPair(where, one, other, source=f'tatoeba {code}', language=_iso(code))


def _iso(code: str) -> str:
  try:
    return language_codes.resolve(code).code
  except language_codes.UnknownLanguageError:
    return code


def _parallel(
  examples: Iterable[generated_tasks.Example], name: str, code: str
) -> Iterator[TextPair]:
  for example in examples:
    source, (target, *_) = example.columns['source'], example.references
    group = f'{name} {example.id}'
    yield TextPair(example.where, source, target, (), f'{name} {code}', group, code)


def _sib200(split: str, code: str) -> Iterator[TextPair]:
  examples = sib200.read_pairs(split, code, translation_pairs.TO_ENGLISH)
  return _parallel(examples, 'sib200', _iso(code))


def _nusax(split: str, name: str) -> Iterator[TextPair]:
  examples = nusax.read_pairs(split, name, 'indonesian')
  return _parallel(examples, 'nusax', nusax.LANGUAGES[name])


def _questions(
  split: str, code: str, *, name: str, read: Callable[[str, str], Iterable[generated_tasks.Example]]
) -> Iterator[TextPair]:
  for example in read(split, code):
    columns = example.columns
    yield TextPair(
      example.where,
      columns['question'],
      columns['context'],
      source=f'{name} {code}',
      language=_iso(code),  # an example's is that of its answer, in AfriQA the passage's
    )


def _add(
  benchmark: str,
  kind: str,
  codes: Sequence[tuple[str, str]],
  read: Callable[[str, str], Iterable[TextPair]],
  splits: Sequence[str],
  license: str,
) -> str:
  """A task for each (ISO code, name in the release), and the mixture of all."""
  tasks = []
  for code, name in codes:
    task = f'{benchmark}.{code}.{kind}'
    source = pair_tasks.PairSource(task, functools.partial(_of, read=read, name=name), splits)
    provenance.declare(pair_tasks.add(task, source), license)
    tasks.append(task)
  mixture = f'{benchmark}.{kind}'
  rate = functools.partial(pair_tasks.temperature_rate, temperature=TEMPERATURE)
  seqio.MixtureRegistry.add(mixture, tasks, default_rate=rate)
  return mixture


def _of(
  split: str, *, read: Callable[[str, str], Iterable[TextPair]], name: str
) -> Iterable[TextPair]:
  return read(split, name)


_TATOEBA_CODES = (
  *(
    'afr',
    'amh',
    'ang',
    'ara',
    'arq',
    'arz',
    'ast',
    'awa',
    'aze',
    'bel',
    'ben',
    'ber',
    'bos',
    'bre',
  ),
  *(
    'bul',
    'cat',
    'cbk',
    'ceb',
    'ces',
    'cha',
    'cmn',
    'cor',
    'csb',
    'cym',
    'dan',
    'deu',
    'dsb',
    'dtp',
  ),
  *(
    'ell',
    'epo',
    'est',
    'eus',
    'fao',
    'fin',
    'fra',
    'fry',
    'gla',
    'gle',
    'glg',
    'gsw',
    'heb',
    'hin',
  ),
  *(
    'hrv',
    'hsb',
    'hun',
    'hye',
    'ido',
    'ile',
    'ina',
    'ind',
    'isl',
    'ita',
    'jav',
    'jpn',
    'kab',
    'kat',
  ),
  *(
    'kaz',
    'khm',
    'kor',
    'kur',
    'kzj',
    'lat',
    'lfn',
    'lit',
    'lvs',
    'mal',
    'mar',
    'max',
    'mhr',
    'mkd',
  ),
  *(
    'mon',
    'nds',
    'nld',
    'nno',
    'nob',
    'nov',
    'oci',
    'orv',
    'pam',
    'pes',
    'pms',
    'pol',
    'por',
    'ron',
  ),
  *(
    'rus',
    'slk',
    'slv',
    'spa',
    'sqi',
    'srp',
    'swe',
    'swg',
    'swh',
    'tam',
    'tat',
    'tel',
    'tgl',
    'tha',
  ),
  *(
    'tuk',
    'tur',
    'tzl',
    'uig',
    'ukr',
    'urd',
    'uzb',
    'vie',
    'war',
    'wuu',
    'xho',
    'yid',
    'yue',
    'zsm',
  ),
)
"""The 112 languages of LASER's Tatoeba, by its own codes, which name the tasks too."""

_SPLITS = ('train', 'validation', 'test')
_SIB200 = [(iso, code) for iso, code in flores_codes.AYA.items() if code != flores_codes.ENGLISH]
_NUSAX = [(code, name) for name, code in nusax.LANGUAGES.items() if name != 'indonesian']
_XQUAD = [(generated_tasks.code_of(code), code) for code in xquad.LANGUAGES]
_TYDIQA = [(generated_tasks.code_of(name), name) for name in tydiqa.LANGUAGES]
_AFRIQA = [(code, code) for code in afriqa.LANGUAGES]
_SHARE_ALIKE = 'CC BY-SA 4.0'

MIXTURES = (
  _add('sib200', 'pairs', _SIB200, _sib200, _SPLITS, _SHARE_ALIKE),
  _add('nusax', 'pairs', _NUSAX, _nusax, _SPLITS, _SHARE_ALIKE),
  _add('tatoeba', 'pairs', [(c, c) for c in _TATOEBA_CODES], _tatoeba, ('test',), 'CC BY 2.0 FR'),
  _add(
    'xquad',
    'retrieval',
    _XQUAD,
    functools.partial(_questions, name='xquad', read=xquad.read),
    ('validation',),
    _SHARE_ALIKE,
  ),
  _add(
    'tydiqa',
    'retrieval',
    _TYDIQA,
    functools.partial(_questions, name='tydiqa', read=tydiqa.read),
    ('train', 'validation'),
    'Apache License 2.0',
  ),
  _add(
    'afriqa',
    'retrieval',
    _AFRIQA,
    functools.partial(_questions, name='afriqa', read=afriqa.read_passages),
    _SPLITS,
    'CC BY 4.0',
  ),
)
