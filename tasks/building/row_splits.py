"""Second half of building a source: the pieces of all units become the shards of TFDS splits.

Rows keep the order of the release, so the same files give the same bytes, whatever the number of
processes. Duplicates go (the first stays), groups are cut to their limit, samples are drawn. What
is read of a piece is its frames: nothing is parsed.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from aya_train import path_facts
from aya_train.tasks import storage
from aya_train.tasks.building import row_units
from aya_train.tasks.building.read_report import ReadReport

SHARD_BYTES = 256 << 20
_DONE = 'split.json'
_FRAME = struct.Struct('<Q')  # of a TFRecord: length, 4 bytes of CRC, the record, 4 bytes of CRC


@dataclasses.dataclass(frozen=True)
class Split:
  """A finished split of a config.

  Attributes:
    config, name: of TFDS.
    shard_lengths: rows of each file.
    num_bytes: over all files.
    duplicates: rows that were left out as repeated.
    over_limit: rows that were left out since their group had its number.
    content: the sum of the rows' keys modulo 2**64, in hex: equal for equal rows in any order.
  """

  config: str
  name: str
  shard_lengths: tuple[int, ...]
  num_bytes: int
  duplicates: int = 0
  over_limit: int = 0
  content: str = ''

  @property
  def num_rows(self) -> int:
    return sum(self.shard_lengths)


@dataclasses.dataclass(frozen=True)
class _Piece:
  unit: int
  rows: int
  groups: tuple[str, ...]


Places = dict[tuple[str, str, str], list[_Piece]]


def places(work_dir: epath.PathLike, num_units: int) -> tuple[Places, ReadReport]:
  """The pieces of each (config, split, part), in the order of the units, and the whole report.

  Raises:
    FileNotFoundError: a unit is not done.
  """
  found: Places = {}
  report = ReadReport()
  for index in range(num_units):
    unit = json.loads((row_units.folder(work_dir, index) / row_units.UNIT).read_text())
    report.merge(ReadReport.from_json(json.dumps(unit['report'])))
    for piece in unit['pieces']:
      config, split, part = piece['place']
      found.setdefault((config, split, part), []).append(
        _Piece(index, piece['rows'], tuple(unit['groups']))
      )
  return found, report


def split_name(split: str, part: str) -> str:
  """Name of the TFDS split."""
  return f'{split}_{part}' if part else split


def finish(work_dir: str, place: tuple[str, str, str], pieces: Sequence[_Piece]) -> list[Split]:
  """Writes the shards of a place, and of the sample drawn from it; nothing if they are there.

  Returns:
    The split, and the sample if there is one. Places of which nothing is left give no split.
  """
  job = row_units.job_at(work_dir)
  source = row_units.layout(job.source)
  config, split, part = place
  directory = epath.Path(work_dir) / 'splits' / config / split_name(split, part)
  if (directory / _DONE).exists():
    done = json.loads((directory / _DONE).read_text())
    return [Split(**{**s, 'shard_lengths': tuple(s['shard_lengths'])}) for s in done]
  if directory.exists():
    directory.rmtree()
  keys, groups = _keys(work_dir, place, pieces)
  keep = first_of_each(keys)
  duplicates = int(len(keep) - keep.sum())
  over_limit = 0
  if source.group_limit:
    kept = int(keep.sum())
    keep = smallest_of_each(keys, groups, source.group_limit, keep)
    over_limit = kept - int(keep.sum())
  storage.remove_leftovers(directory.parent)
  temporary = storage.temporary(directory)
  temporary.mkdir(parents=True)
  try:
    made = []
    lengths, size = _write(work_dir, place, pieces, keep, temporary, split_name(split, part))
    if lengths:
      made.append(
        Split(
          config,
          split_name(split, part),
          lengths,
          size,
          duplicates,
          over_limit,
          _content(keys[keep]),
        )
      )
    if (sample := source.sample(config, split, part)) is not None:
      name, rows = sample
      drawn = smallest_of_each(keys, np.zeros_like(groups), rows, keep) if rows else keep
      lengths, size = _write(work_dir, place, pieces, drawn, temporary, name)
      if lengths:
        made.append(Split(config, name, lengths, size, content=_content(keys[drawn])))
    (temporary / _DONE).write_text(json.dumps([dataclasses.asdict(s) for s in made]))
    temporary.rename(directory)
  finally:
    if temporary.exists():
      temporary.rmtree()
  return made


def _file(work_dir: str, place: tuple[str, str, str], piece: _Piece, ending: str) -> epath.Path:
  return row_units.folder(work_dir, piece.unit) / f'{".".join(place)}.{ending}'


def _keys(
  work_dir: str, place: tuple[str, str, str], pieces: Sequence[_Piece]
) -> tuple[np.ndarray, np.ndarray]:
  """Keys (uint64) and groups (int64, numbered over all units) of a place's rows."""
  numbers: dict[str, int] = {}
  keys, groups = [], []
  for piece in pieces:
    with _file(work_dir, place, piece, 'npy').open('rb') as file:
      found = np.load(file)
    renumber = np.array([numbers.setdefault(g, len(numbers)) for g in piece.groups], np.int64)
    keys.append(found['key'])
    groups.append(renumber[found['group']])
  return np.concatenate(keys), np.concatenate(groups)


def _content(keys: np.ndarray) -> str:
  return f'{int(np.sum(keys, dtype=np.uint64)):016x}'


def first_of_each(keys: np.ndarray) -> np.ndarray:
  """Boolean [N]: whether a row is the first with its key."""
  first = np.unique(keys, return_index=True)[1]
  keep = np.zeros(len(keys), bool)
  keep[first] = True
  return keep


def smallest_of_each(
  keys: np.ndarray, groups: np.ndarray, limit: int, among: np.ndarray
) -> np.ndarray:
  """Boolean [N]: the `limit` rows with the smallest keys of each group, of the rows in `among`."""
  index = np.flatnonzero(among)
  order = index[np.lexsort((keys[index], groups[index]))]
  ordered = groups[order]
  starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else order
  rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
  keep = np.zeros(len(keys), bool)
  keep[order[rank < limit]] = True
  return keep


def frames(path: epath.Path) -> Iterator[memoryview]:
  """The frames of a TFRecord file, each with its length and checksums, unparsed.

  Raises:
    ValueError: the file ends in the middle of a frame.
  """
  data = memoryview(path.read_bytes())
  at = 0
  while at < len(data):
    end = at + 16 + _FRAME.unpack_from(data, at)[0] if at + 12 <= len(data) else len(data) + 1
    if end > len(data):
      raise ValueError(f'{path}: ends in the middle of a record; remove it and build again')
    yield data[at:end]
    at = end


def _write(
  work_dir: str,
  place: tuple[str, str, str],
  pieces: Sequence[_Piece],
  keep: np.ndarray,
  directory: epath.Path,
  name: str,
) -> tuple[tuple[int, ...], int]:
  """Writes the kept rows in order; rows of each file, and bytes of all."""
  job = row_units.job_at(work_dir)
  total = int(keep.sum())
  if not total:
    return (), 0
  paths = [_file(work_dir, place, p, 'tfrecord') for p in pieces]
  size = sum(path_facts.size(p) for p in paths) * total / len(keep)
  count = min(total, job.options.num_shards or max(1, round(size / SHARD_BYTES)))
  ends = [(i + 1) * total // count for i in range(count)]
  written, shard, offset, num_bytes = 0, 0, 0, 0
  out = (directory / shard_name(job.source, name, 0, count)).open('wb')
  try:
    for piece, path in zip(pieces, paths, strict=True):
      wanted = keep[offset : offset + piece.rows]
      offset += piece.rows
      if not wanted.any():
        continue
      for frame, want in zip(frames(path), wanted, strict=True):
        if not want:
          continue
        if written == ends[shard]:
          out.close()
          shard += 1
          out = (directory / shard_name(job.source, name, shard, count)).open('wb')
        out.write(frame)
        written += 1
        num_bytes += len(frame)
  finally:
    out.close()
  return tuple(b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)), num_bytes


def shard_name(source: str, split: str, index: int, count: int) -> str:
  """TFDS's name of a file."""
  return f'{source}-{split}.tfrecord-{index:05d}-of-{count:05d}'


def remove(work_dir: epath.PathLike) -> None:
  """Deletes a work folder."""
  path = epath.Path(os.fspath(work_dir))
  if path.exists():
    path.rmtree()
