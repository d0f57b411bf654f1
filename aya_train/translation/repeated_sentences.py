"""Sentences that stand in several units of work, each translated once in the whole run.

Instructions made of templates say the same again and again. Each unit's rows are cut, and what the
engine would be given is noted; what several units have goes into units of its own, in the order in
which it first comes, which are translated before the rows. So what is translated, and in which
batches, depends on the rows alone. What one unit has to itself is translated with its rows.

Where languages have samples of their own, so have they sentences of their own (`group`).
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from aya_train.tasks import storage
from aya_train.translation import row_translation, translation_jobs
from aya_train.translation.translation_jobs import Job

FOLDER = 'sentences'
ALL = 'all'
_CUT, _REPEATED, _INDEX = 'of_units', 'repeated', 'index.json'
_DONE = 'repeated'  # beside the units of rows
_OF_UNIT = 4  # sentences of a unit for each row that a unit of rows has
_DIGEST = 8  # bytes: two that are alike by chance are translated early, and nothing else


@dataclasses.dataclass(frozen=True)
class Index:
  """What is known of a run's sentences when all units are cut.

  Attributes:
    own: characters of the sentences that a unit of rows has to itself, by unit.
    repeated: characters of each unit of repeated sentences.
    sentences: repeated ones.
    times: in how many units they stand, all added up.
  """

  own: tuple[int, ...]
  repeated: tuple[int, ...]
  sentences: int
  times: int

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), sort_keys=True) + '\n'

  @classmethod
  def from_json(cls, text: str) -> 'Index':
    value = json.loads(text)
    return cls(**{**value, **{k: tuple(value[k]) for k in ('own', 'repeated')}})


def group(job: Job, target: str) -> str:
  """Of languages that have the same rows, and so the same sentences."""
  return target if job.is_sampled else ALL


def groups(job: Job) -> list[str]:
  """Of all languages of a job."""
  return list(dict.fromkeys(group(job, target) for target in job.targets))


def cut_file(folder: epath.PathLike, unit: int, of_group: str) -> epath.Path:
  """What the engine would be given for a unit of rows: a line each, a digest and the sentence."""
  return epath.Path(folder) / FOLDER / of_group / _CUT / f'{unit:05d}.txt'


def unit_file(folder: epath.PathLike, unit: int, target: str) -> epath.Path:
  """Translations of a unit of repeated sentences into a language, then a line of counts."""
  return translation_jobs.unit_file(folder, unit, target).parent / _DONE / f'{unit:05d}.jsonl'


def cut(folder: str, unit: int, of_group: str) -> None:
  """Cuts a unit's rows into sentences, unless that is done."""
  final = cut_file(folder, unit, of_group)
  if final.exists():
    return
  job = translation_jobs.at(folder)
  rows = translation_jobs.rows_of(folder, unit, of_group)
  settings = translation_jobs.settings_of(job.settings)
  given = row_translation.inputs(rows, translation_jobs.source_code(job), settings)
  lines = (f'{_digest(text)} {translation_jobs.to_line(s)}\n' for text, s in given.items())
  final.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(final, ''.join(lines))


def gather(folder: epath.PathLike, job: Job, of_group: str) -> Index:
  """Finds what several units have, when all are cut, and writes it as units of its own."""
  path = epath.Path(folder) / FOLDER / of_group / _INDEX
  if path.exists():
    return _index(str(path))
  every = np.concatenate(
    [
      np.array([digest for digest, _ in _lines(folder, unit, of_group)], np.uint64)
      for unit in range(job.units)
    ]
  )
  values, counts = np.unique(every, return_counts=True)
  repeated = set(values[counts > 1].tolist())
  left, number = set(repeated), 0
  own: list[int] = []
  sizes: list[int] = []
  held: list[str] = []

  def put() -> None:
    final = _sentences_file(folder, len(sizes), of_group)
    final.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomically(final, ''.join(line + '\n' for line in held))
    sizes.append(sum(map(len, held)))
    held.clear()

  for unit in range(job.units):
    size = 0
    for digest, line in _lines(folder, unit, of_group):
      if digest not in repeated:
        size += len(line)
      elif digest in left:
        left.discard(digest)
        held.append(line)
        number += 1
        if len(held) == _OF_UNIT * job.rows_of_unit:
          put()
    own.append(size)
  if held:
    put()
  made = Index(tuple(own), tuple(sizes), number, int(counts[counts > 1].sum()))
  path.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(path, made.to_json())
  return made


def run(folder: str, unit: int, target: str) -> tuple[int, int]:
  """Translates a unit of repeated sentences into a language, unless that is done.

  Returns:
    No rows, and tokens.

  Raises:
    ValueError: the engine that was opened here is another one than the job's.
  """
  final = unit_file(folder, unit, target)
  if final.exists():
    return 0, 0
  job, found = translation_jobs.at(folder), translation_jobs.opened(folder, unit, target)
  lines = _sentences_file(folder, unit, group(job, target)).read_text().split('\n')
  known, counts = row_translation.translate_sentences(
    [json.loads(line) for line in lines if line],
    found.engine,
    found.source,
    found.into,
    translation_jobs.settings_of(job.settings),
    found.way_back,
  )
  made: list[dict[str, Any]] = [
    {'way': way, 'text': text, 'translation': translation}
    for way in ('there', 'back')
    for text, translation in getattr(known, way).items()
  ]
  final.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(final, translation_jobs.to_unit(made, counts))
  return 0, counts.tokens


@functools.lru_cache(maxsize=1)
def known(folder: str, target: str) -> row_translation.Known:
  """Translations of all repeated sentences into a language."""
  made = row_translation.Known({}, {})
  for lines, _ in results(folder, translation_jobs.at(folder), target):
    for line in lines:
      getattr(made, line['way']).setdefault(line['text'], line['translation'])
  return made


def results(
  folder: epath.PathLike, job: Job, target: str
) -> Iterator[tuple[list[dict[str, Any]], row_translation.Counts]]:
  """What the units of repeated sentences of a language hold, in their order."""
  for unit in range(len(gather(folder, job, group(job, target)).repeated)):
    yield translation_jobs.read(unit_file(folder, unit, target))


def examples(folder: epath.PathLike, unit: int, of_group: str, most: int) -> list[str]:
  """The first sentences of a unit of rows."""
  lines = _lines(folder, unit, of_group)
  return [json.loads(line) for _, (_, line) in zip(range(most), lines, strict=False)]


@functools.lru_cache(maxsize=4)
def _index(path: str) -> Index:
  return Index.from_json(epath.Path(path).read_text())


def _sentences_file(folder: epath.PathLike, unit: int, of_group: str) -> epath.Path:
  return epath.Path(folder) / FOLDER / of_group / _REPEATED / f'{unit:05d}.jsonl'


def _lines(folder: epath.PathLike, unit: int, of_group: str) -> Sequence[tuple[int, str]]:
  lines = cut_file(folder, unit, of_group).read_text().split('\n')
  return [(int(line[: 2 * _DIGEST], 16), line[2 * _DIGEST + 1 :]) for line in lines if line]


def _digest(text: str) -> str:
  return hashlib.blake2b(text.encode(), digest_size=_DIGEST).hexdigest()
