"""Data Provenance: 16 collections of instructions whose licences were audited.

Tasks `data_provenance` and `data_provenance.<constituent>`. At most 20,000 rows are kept of one
audited data set (there are 1,770 in the 16 collections), as Aya-101 did; which ones is drawn by a
hash of the row.

Three forms are read: lists of messages, of which each rated answer makes a row; flat records with
inputs, targets and dataset; and the hub's flat records with user_parent, inputs and labels. The
row's `id` begins with the identifier of the audited data set, by which licences are looked up.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from aya_train.tasks import catalog, source_tasks
from aya_train.tasks.building import releases, row_units, rows, source_builder
from aya_train.tasks.building.read_report import RowProblemError
from aya_train.tasks.languages import language_codes
from aya_train.tasks.sources import message_trees

SOURCE = 'data_provenance'

# How identifiers of audited data sets begin, in the order in which they are tried.
_IDENTIFIERS = (
  ('anthropic_hhrlhf', 'rlhf_anthropic_hh'),
  ('commitpackft-', 'commitpack_ft'),
  ('dolly-', 'dolly_15k'),
  ('fc-cot-', 'flan_cot'),
  ('fc-dialog-', 'flan_dialog'),
  ('fc-flan-', 'flan_2021'),
  ('fc-p3-', 'flan_p3'),
  ('fc-sni-', 'flan_sni'),
  ('joke-explanation', 'joke_explanation'),
  ('oig-', 'oig'),
  ('oasst-en-octopack', 'octopack_oa'),
  ('oasst-', 'open_assistant'),
  ('tsi-', 'tasksource_instruct'),
  ('tsy-', 'tasksource_symboltuning'),
  ('xp3x-', 'xp3x'),
  ('starcoder', 'starcoder_selfinstruct'),
)


class DataProvenance(source_builder.SourceBuilder):
  """Pairs of 16 audited collections, at most 20,000 of one data set; a single split, train."""

  name = SOURCE
  source = SOURCE
  VERSION = tfds.core.Version(catalog.by_name(SOURCE).version)
  BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
    tfds.core.BuilderConfig(name=part) for part in catalog.DATA_PROVENANCE
  ]
  description = __doc__ or ''
  citation = """
@article{longpre2023data,
  title = {The Data Provenance Initiative: A Large Scale Audit of Dataset Licensing and
           Attribution in AI},
  author = {Shayne Longpre and others},
  journal = {arXiv preprint arXiv:2310.16787},
  year = {2023}
}
"""
  homepage = 'https://www.dataprovenance.org'
  terms = 'differs by audited data set; see aya_train.tasks.rights.provenance'
  RELEASE_NOTES: ClassVar[dict[str, str]] = {'1.0.0': 'First version.'}


def constituent_of(dataset_id: str) -> str | None:
  """The constituent to which an audited data set belongs; None for one of another collection."""
  for beginning, part in _IDENTIFIERS:
    if dataset_id.lower().startswith(beginning):
      return part
  return None


def _plain(name: str) -> str:
  return re.sub(r'[^a-z0-9]', '', name.lower())


_BY_PLAIN_NAME = {
  **{_plain(folder): folder for folder in catalog.DATA_PROVENANCE},
  **{_plain(title): folder for folder, title in catalog.DATA_PROVENANCE.items()},
}


def select(
  files: Sequence[releases.ReleasedFile], options: row_units.Options
) -> list[row_units.Input]:
  """Files in a folder of a constituent, or with its name, or of all of them together.

  `data/oig/x.jsonl`, `coig/COIG-processed.jsonl` (not of the 16: left out), `OIG.jsonl.gz`. A
  file whose place says nothing is read, and its rows say where they belong.
  """
  wanted = options.constituents or tuple(catalog.DATA_PROVENANCE)
  found = []
  for file in files:
    *folders, base = file.name.split('/')
    stem = re.sub(r'(-processed)?\.jsonl?(\.gz)?$', '', base)
    known = next((p for n in (*folders, stem) if (p := _BY_PLAIN_NAME.get(_plain(n)))), None)
    if known is None and [f for f in folders if f not in ('data', 'train')]:
      continue  # a folder of another collection
    if known is None:
      found.append(row_units.Input(file.name, file.size))
    elif known in wanted:
      found.append(row_units.Input(file.name, file.size, context={'config': known}))
  return found


def to_rows(
  record: Any, item: row_units.Input, where: str, options: row_units.Options
) -> Iterator[tuple[rows.Place, rows.Row]]:
  """The rows of a conversation or of a flat record."""
  number = where.split()[-1]
  code = ''
  if isinstance(record, Mapping):
    code = rows.optional(record, 'language_code', 'language', 'lang')
    messages = record.get('messages')
    found = list(message_trees.pairs(messages)) if messages else [_flat(record)]
  else:
    found = list(message_trees.pairs(record))
  for pair in found:
    part = constituent_of(pair.dataset_id) or item.context.get('config')
    if part is None:
      raise RowProblemError(
        'unknown_dataset', f'{pair.dataset_id!r} is of none of the 16 collections'
      )
    if options.constituents and part not in options.constituents:
      continue
    variety = _language(pair.dataset_id, part, code)
    yield (
      rows.Place(part, 'train', '', pair.dataset_id),
      rows.Row(
        pair.inputs,
        pair.targets,
        variety.code,
        variety.script,
        part,
        '',
        f'{pair.dataset_id}/{number}.{pair.message}',
      ),
    )


def _flat(record: Mapping[str, Any]) -> message_trees.Pair:
  dataset_id = rows.optional(record, 'user_parent', 'dataset')
  if not dataset_id:
    raise RowProblemError('wrong_columns', f'no user_parent or dataset among {sorted(record)[:12]}')
  targets = record.get('labels', record.get('targets'))
  if isinstance(targets, list) and len(targets) == 1:
    targets = targets[0]
  return message_trees.Pair(
    rows.text(record, 'inputs'), rows.text({'targets': targets}, 'targets'), dataset_id, 0
  )


def _language(dataset_id: str, part: str, code: str) -> language_codes.Variety:
  """The row's own code, else what the identifier says ('oasst-ru'), else English or code."""
  if code:
    return rows.language(code)
  if part in ('open_assistant', 'xp3x'):
    try:
      return language_codes.resolve(dataset_id.rsplit('-', 1)[-1])
    except language_codes.UnknownLanguageError:
      pass
  return language_codes.resolve('code' if part == 'commitpack_ft' else 'eng')


LAYOUTS = {
  SOURCE: row_units.Layout(
    select, to_rows, records_are_lists=True, group_limit=catalog.ROWS_PER_PROVENANCE_SET
  )
}
BUILDERS = {SOURCE: DataProvenance}

source_tasks.add(SOURCE, source_tasks.BuiltSource(SOURCE, tuple(catalog.DATA_PROVENANCE)))
for _part in catalog.DATA_PROVENANCE:
  source_tasks.add(f'{SOURCE}.{_part}', source_tasks.BuiltSource(SOURCE, (_part,)))
