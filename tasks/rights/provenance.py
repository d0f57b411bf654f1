"""Where data comes from, and what may be done with it.

`RECORDS` has a record for each source, and for constituents whose terms differ from their
collection's. The licences of constituents are those that the Data Provenance audit found for the
same data sets (its summaries of the Flan Collection, OIG and others), not what a collection's card
says of the whole. A constituent without a record has its source's.

`read_summaries` reads the audit's own files (data_summaries/*.json), which say more about the 1,770
data sets of Data Provenance than this table.
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import seqio
from etils import epath

from aya_train import path_facts
from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.cldr import cldr_tasks
from aya_train.tasks.languages import language_codes
from aya_train.tasks.mixtures import aya_mixtures
from aya_train.tasks.rights import licenses
from aya_train.tasks.rights.licenses import Rights
from aya_train.tasks.user import user_data


@dataclasses.dataclass(frozen=True)
class Record:
  """Provenance of a source, a constituent or an audited data set.

  Attributes:
    name: of it.
    licenses: (name, address of the terms) of each licence.
    attribution: whom to name, in words.
    model_generated_by: models that wrote text of it.
    terms: other terms that bind.
    use: use class where it is not that of the licences, with the reason in `terms`.
    refused: licence names that no table has; such a record breaks every policy.
    languages: ISO 639-3 codes of an audited data set, where its identifier says them; () if not.
  """

  name: str
  licenses: tuple[tuple[str, str], ...]
  attribution: str = ''
  model_generated_by: tuple[str, ...] = ()
  terms: str = ''
  use: str | None = None
  refused: tuple[str, ...] = ()
  languages: tuple[str, ...] = ()

  @property
  def rights(self) -> Rights:
    """The strictest of the licences; a name that no table has allows nothing."""
    known = [licenses.classify(*pair) for pair in self.licenses if pair[0] not in self.refused]
    found = licenses.strictest([*known, *(licenses.NOT_READ for _ in self.refused)])
    return found if self.use is None else dataclasses.replace(found, use=self.use)


_AYA = 'Singh et al. 2024, Aya Dataset (arXiv 2402.06619), Cohere For AI'
_NLLB = ('NLLB-200 3.3B',)
_APACHE = (('Apache License 2.0', ''),)
_XP3_AUTHORS = 'Muennighoff et al. 2022 (arXiv 2211.01786)'
_C3 = ('Custom', 'https://github.com/nlpdata/c3/blob/master/license.txt')
_P3_STRICTEST = (
  ('Microsoft Data Licensing Agreement', ''),
  ('Academic Research Purposes Only', 'https://github.com/nlpdata/dream/blob/master/license.txt'),
)


def _translated(name: str, *names: str, **more: Any) -> Record:
  return Record(
    f'aya_collection_translated.{name}',
    (*_APACHE, *((n, more.pop('url', '')) for n in names)),
    _AYA,
    (*_NLLB, *more.pop('models', ())),
    **more,
  )


RECORDS: dict[str, Record] = {
  record.name: record
  for record in (
    Record(
      'cldr',
      (('Unicode License v3', 'https://www.unicode.org/license.txt'),),
      'Unicode CLDR, through Babel (BSD-3-Clause)',
    ),
    Record('aya_dataset', _APACHE, _AYA),
    Record('aya_evaluation_suite', _APACHE, _AYA),
    Record('aya_collection_templated', _APACHE, _AYA),
    # soda was written by GPT-3.5; the audit adds OpenAI's terms to CC BY 4.0.
    Record(
      'aya_collection_templated.soda',
      (*_APACHE, ('CC BY 4.0', ''), ('OpenAI', '')),
      _AYA,
      ('OpenAI GPT-3', 'OpenAI ChatGPT'),
      "OpenAI's terms: output is not to be used for models that compete with OpenAI's",
    ),
    Record('aya_collection_templated.joke_explaination', (*_APACHE, ('MIT License', '')), _AYA),
    Record('aya_collection_translated', _APACHE, _AYA, _NLLB),
    _translated('adversarial_qa', 'CC BY-SA 3.0'),
    _translated('cnn_dailymail', 'MIT License'),
    _translated('dolly', 'CC BY-SA 3.0'),
    _translated(
      'flan_coqa', 'Custom', url='https://www.cs.cmu.edu/~glai1/data/race/#:~:text=notes'
    ),
    _translated('flan_gem_wiki', 'CC BY 3.0'),
    _translated('flan_lambada', 'CC BY 4.0'),
    _translated('hotpotqa', 'CC BY-SA 4.0'),
    _translated('joke_explaination', 'MIT License'),
    _translated('mlqa', 'CC BY-SA 3.0'),
    _translated('nqopen', 'CC BY-SA 3.0'),
    _translated('paws', 'Custom', url='https://github.com/google-research-datasets/paws'),
    _translated('piqa', 'Academic Free License v3.0'),
    _translated(
      'soda',
      'CC BY 4.0',
      'OpenAI',
      models=('OpenAI GPT-3', 'OpenAI ChatGPT'),
      terms="OpenAI's terms: output is not to be used for models that compete with OpenAI's",
    ),
    _translated('wikiqa', 'Microsoft Data Licensing Agreement'),
    Record(
      'xp3x',
      (
        *_APACHE,
        ('CC BY-SA 4.0', ''),
        ('CC BY-NC 4.0', ''),
        ('CC BY-NC-SA 3.0', ''),
        ('CC BY-NC-SA 4.0', ''),
        _C3,
        ('Various', ''),
        ('Unspecified', ''),
      ),
      _XP3_AUTHORS,
      terms='the collection is Apache-2.0; of its 467 audited data sets 287 are commercial, '
      '2 unspecified, 174 non-commercial and 4 academic-only',
    ),
    # No audit has xP3 as such; these are the strictest that it found for data sets of theirs.
    *(
      Record(
        name,
        (*_APACHE, ('Unspecified', ''), ('CC BY-NC-SA 4.0', ''), *_P3_STRICTEST, _C3),
        _XP3_AUTHORS,
        terms='the collection is Apache-2.0; WikiQA, DREAM and C3 in it are academic-only',
      )
      for name in ('xp3', 'xp3mt', 'xp3all')
    ),
    Record(
      'p3',
      (*_APACHE, ('Unspecified', ''), ('CC BY-NC-SA 4.0', ''), *_P3_STRICTEST),
      'Sanh et al. 2021 (arXiv 2110.08207); Muennighoff et al. 2022 (arXiv 2211.01786)',
      terms='the collection is Apache-2.0; WikiQA and DREAM in it are academic-only',
    ),
    Record(
      'data_provenance',
      (('All Uses-Attribution', 'https://www.dataprovenance.org'), ('CC BY-SA', '')),
      'Longpre et al. 2023 (arXiv 2310.16787), and the authors of each data set',
      terms='the release holds data sets of commercial licences only, share-alike ones among them',
    ),
    Record(
      'sharegpt_command',
      (('Unspecified', ''), ('OpenAI', 'https://sharegpt.com/')),
      'ShareGPT users; Cohere Command',
      ('Cohere Command', *_NLLB),
      "Cohere's terms forbid training on Command's output, from which Aya's authors were exempt "
      "(Üstün et al. 2024, section 2.4); OpenAI's terms bind the prompts' source",
    ),
    Record(
      'safety_context_distillation',
      (('Unspecified', ''),),
      terms='user supplied: give its licence in the table of data sets',
    ),
  )
}

_declared: dict[str, Record] = {}


def declare(
  name: str,
  license: str,
  *,
  url: str = '',
  use: str | None = None,
  attribution: str = '',
  model_generated_by: Sequence[str] = (),
  terms: str = '',
) -> None:
  """States the provenance of a task of one's own.

  Args:
    name: of the SeqIO task.
    license: a name that `licenses.classify` knows, or several between ';'.
    url: of the terms, for 'Custom'.
    use: use class, for terms that the name does not tell.
    attribution, model_generated_by, terms: as in `Record`.

  Raises:
    licenses.UnknownLicenseError: naming the licence.
    ValueError: `use` is no use class, or laxer than a licence.
  """
  names = [part.strip() for part in license.split(';') if part.strip()]
  for part in names:
    licenses.classify_stated(part, url)
  if use is not None:
    licenses.check_use(use, [(part, url) for part in names], name)
  _declared[name] = Record(
    name,
    tuple((part, url) for part in names),
    attribution,
    tuple(model_generated_by),
    terms,
    use,
  )


def record_of(name: str) -> Record:
  """The record of `SOURCE` or `SOURCE.CONSTITUENT`; one that says Unspecified if there is none."""
  for known in (name, name.split('.')[0]):
    if known in _declared:
      return _declared[known]
    if (dataset := user_data.find(known)) is not None:
      return _of_user(dataset)
    if known in RECORDS:
      return RECORDS[known]
  return Record(name, (('Unspecified', ''),), terms='nothing is stated about this data')


def _of_user(dataset: user_data.Dataset) -> Record:
  names = [part.strip() for part in dataset.license.split(';') if part.strip()]
  unknown = []
  for part in names:
    try:
      licenses.classify_stated(part)
    except licenses.UnknownLicenseError:
      unknown.append(part)
  if dataset.use:
    licenses.check_use(dataset.use, [(part, '') for part in names], f'data set {dataset.name}')
  return Record(
    dataset.name,
    tuple((part, '') for part in names or ['Unspecified']),
    dataset.attribution,
    tuple(part.strip() for part in dataset.model_generated_by.split(';') if part.strip()),
    dataset.terms,
    dataset.use or None,
    tuple(unknown),
  )


def origins(task: seqio.Task) -> tuple[str, ...]:
  """Sources or constituents that a task reads, by the names of `record_of`."""
  source = task.source
  if isinstance(source, source_tasks.BuiltSource):
    name = source.source_name
    return tuple(f'{name}.{part}' if part else name for part in source.constituents)
  if isinstance(source, cldr_tasks.CldrSource):
    return ('cldr',)
  return (task.name,)


def origin_of(task: seqio.Task, dataset: str) -> str:
  """The one of a task's `origins` that a data set in it has; the first if none is named so."""
  named = [origin for origin in origins(task) if origin.endswith(f'.{dataset}')]
  return named[0] if named else origins(task)[0]


def source_of(task: seqio.Task) -> str:
  """Name of the source in the manifest: of `catalog.SOURCES`, else of the task."""
  return origins(task)[0].split('.')[0] if len(origins(task)) > 1 else _first(origins(task)[0])


def _first(origin: str) -> str:
  head = origin.split('.')[0]
  return head if head in catalog.BY_NAME else origin


def tasks_of(provider: seqio.Task | seqio.Mixture) -> list[seqio.Task]:
  """The task itself, or the tasks of a mixture."""
  return [provider] if isinstance(provider, seqio.Task) else list(provider.tasks)


def check(name: str, policy: str, summaries: Mapping[str, Record] | None = None) -> None:
  """Refuses a mixture or task that a policy does not admit.

  Args:
    name: of the mixture or task.
    policy: 'commercial', 'unspecified', 'non-commercial' or 'academic-only'; each admits those
      before it.
    summaries: records of audited data sets (`read_summaries`). Those of the mixture's Data
      Provenance constituents are then checked one by one, and those of xP3x, in the languages that
      are read, take the place of xP3x's own record.

  Raises:
    ValueError: listing every part that breaks the policy, with its licences.
  """
  licenses.admits(policy, licenses.COMMERCIAL)
  records: dict[str, Record] = {}
  for task in tasks_of(seqio.get_mixture_or_task(name)):
    for part in origins(task):
      audited = _audited(part, task, summaries or {})
      # Data Provenance has rows of its own release, and so its own record, beside the audit's.
      if not audited or not part.startswith(aya_mixtures.XP3X):
        records[part] = record_of(part)
      records |= {f'{part}: {key}': record for key, record in audited.items()}
  records = dict(sorted(records.items()))
  offending = [_line(n, r) for n, r in records.items() if not _admitted(r, policy)]
  if offending:
    shown = offending[:40] + ([f'and {len(offending) - 40} more'] if len(offending) > 40 else [])
    lines = '\n  '.join(shown)
    raise ValueError(
      f"{name!r} breaks DATA_LICENSE_POLICY = '{policy}' in {len(offending)} of {len(records)} "
      f'parts:\n  {lines}\n{_advice(records.values(), policy)} (docs/mixtures.md)'
    )


def _advice(records: Collection[Record], policy: str) -> str:
  unknown = sorted({name for record in records for name in record.refused})
  known = [record.rights.use for record in records if not record.refused]
  needed = max([policy, *known], key=licenses.USES.index)
  if not unknown:
    return (
      'Train on other data, or state the policy that your use allows: DATA_LICENSE_POLICY = '
      f"'{needed}' admits it all"
    )
  others = f"; the other parts need DATA_LICENSE_POLICY = '{needed}'" if needed != policy else ''
  return (
    f'No policy admits a licence that is in no table ({", ".join(unknown)}): train on other data, '
    "or name the licence as the Data Provenance audit does ('CC BY 4.0', 'Custom' with its use "
    f'class){others}'
  )


def _audited(part: str, task: seqio.Task, summaries: Mapping[str, Record]) -> dict[str, Record]:
  """The audited data sets that a task may read under one of its origins."""
  from aya_train.tasks.sources import data_provenance

  source, _, constituent = part.partition('.')
  if source not in (aya_mixtures.PROVENANCE, aya_mixtures.XP3X):
    return {}
  codes = getattr(task.source, 'codes', None)
  return {
    key: record
    for key, record in summaries.items()
    if data_provenance.constituent_of(key) == (constituent or source)
    and (codes is None or not record.languages or set(codes) & set(record.languages))
  }


def _admitted(record: Record, policy: str) -> bool:
  return not record.refused and licenses.admits(policy, record.rights.use)


def _line(name: str, record: Record) -> str:
  if record.refused:
    return f'{name}: licence {", ".join(map(repr, record.refused))} is in no table'
  names = ', '.join(n for n, _ in record.licenses) or 'none stated'
  return f'{name}: {record.rights.use} ({names})' + (f'; {record.terms}' if record.terms else '')


def read_summaries(folder: epath.PathLike) -> dict[str, Record]:
  """Records of all audited data sets in a folder of the audit's summaries.

  Several licences of a data set, in one file or in several, become the strictest; a name that no
  table has is kept in `refused`. A template file (`_*.json`) is skipped.

  Raises:
    ValueError: a file is no JSON mapping of identifiers to records; it is named.
  """
  paths = [p for p in path_facts.matching(folder, '*.json') if not p.name.startswith('_')]
  if not paths:
    raise ValueError(f'{folder}: no *.json summaries')
  found: dict[str, Record] = {}
  for path in paths:
    try:
      content = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
      for key, value in content.items():
        record = _from_summary(key, value)
        found[key] = _both(found[key], record) if key in found else record
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
      raise ValueError(f'{path}: not a summary of data sets ({error!r})') from error
  return found


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    name, _ = collections.Counter(name for name, _ in pairs).most_common(1)[0]
    raise ValueError(f'{name!r} stands twice in it')
  return found


def _both(one: Record, other: Record) -> Record:
  """What two files say of one data set: all licences bind, and all languages may be read."""
  return dataclasses.replace(
    one,
    licenses=tuple(dict.fromkeys((*one.licenses, *other.licenses))),
    model_generated_by=tuple(dict.fromkeys((*one.model_generated_by, *other.model_generated_by))),
    terms='; '.join(dict.fromkeys(filter(None, (one.terms, other.terms)))),
    refused=tuple(dict.fromkeys((*one.refused, *other.refused))),
    languages=(*one.languages, *other.languages) if one.languages and other.languages else (),
  )


def _from_summary(key: str, value: Mapping[str, Any]) -> Record:
  pairs = [
    (item.get('License') or 'Unspecified', item.get('License URL') or '')
    for item in value.get('Licenses') or []
  ]
  creators = ', '.join(value.get('Creators') or ())
  notes = value.get('License Notes')
  return Record(
    key,
    tuple(pairs),
    f'{value.get("Dataset Name") or key} ({creators})' if creators else key,
    tuple(value.get('Model Generated') or ()),
    notes if isinstance(notes, str) else '',
    refused=tuple(name for name, url in pairs if not _is_known(name, url)),
    languages=_languages(key, value.get('Dataset Filter IDs') or ()),
  )


def _languages(key: str, filter_ids: Sequence[str]) -> tuple[str, ...]:
  """Codes of the folders of xP3x that hold a data set ('zho_Hans/c3'); () if one is not known."""
  if not key.startswith(aya_mixtures.XP3X):
    return ()
  try:
    return tuple(language_codes.resolve(each.split('/')[0]).code for each in filter_ids)
  except language_codes.UnknownLanguageError:
    return ()


@functools.lru_cache(maxsize=1024)
def _is_known(name: str, url: str) -> bool:
  try:
    licenses.classify(name, url)
  except licenses.UnknownLicenseError:
    return False
  return True
