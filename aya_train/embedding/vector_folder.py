"""Folders of vectors: shards as npy or parquet, written one by one, read as memory maps.

    OUTPUT/embeddings.json                  what the vectors depend on, their number and width
          /vectors-00000-of-00004.npy       float32 or float16 [rows, dimension]
          /rows-00000-of-00004.jsonl        `id` and `text` of each row
          /digests-00000-of-00004.json      sizes and SHA-256 of both
          /part-00000-of-00004.parquet      instead of both: `id`, `text`, `embedding`
A shard appears complete or not at all, and does not depend on when it was made: who goes on after a
kill writes the files that are missing, with the same bytes.
"""

import dataclasses
import hashlib
import io
import json
import logging
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from aya_train import answer_file, destinations, hosts, lease, path_facts, signed_json
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
ABOUT = 'embeddings.json'
SHARD_ROWS = 16_384
Form = Literal['npy', 'parquet']
FORMS = ('npy', 'parquet')
DTYPES = ('float32', 'float16')
_AGAIN = 'Delete it, and the command that wrote it makes it again'


class OtherVectorsError(answer_file.OtherAnswersError):
  """A folder holds vectors of something else."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """How vectors are laid out.

  Attributes:
    count: of all.
    dimension: width of each.
    form: of the files.
    dtype: of the numbers.
    shard_rows: of each shard but the last.
    keep_texts: whether the texts are kept beside the ids.
  """

  count: int
  dimension: int
  form: str = 'npy'
  dtype: str = 'float32'
  shard_rows: int = SHARD_ROWS
  keep_texts: bool = True

  def __post_init__(self) -> None:
    if self.form not in FORMS:
      raise ValueError(f'--format must be one of {FORMS}, got {self.form!r}')
    if self.dtype not in DTYPES:
      raise ValueError(f'--store_dtype must be one of {DTYPES}, got {self.dtype!r}')
    if self.shard_rows < 1:
      raise ValueError(f'--shard_rows must be at least 1, got {self.shard_rows}')

  @property
  def num_shards(self) -> int:
    return -(-self.count // self.shard_rows)

  def rows_of(self, shard: int) -> int:
    """Rows of a shard."""
    return min(self.shard_rows, self.count - shard * self.shard_rows)

  def names(self, shard: int) -> tuple[str, ...]:
    """Files of a shard, in the order in which they are written."""
    end = f'{shard:05d}-of-{self.num_shards:05d}'
    if self.form == 'parquet':
      return (f'part-{end}.parquet',)
    return f'rows-{end}.jsonl', f'vectors-{end}.npy', f'digests-{end}.json'


class VectorWriter:
  """Writes shards that are missing. On several hosts the first one writes, and all make one."""

  def __init__(
    self,
    folder: epath.PathLike,
    about: Mapping[str, Any],
    layout: Layout,
    *,
    overwrite: bool = False,
  ):
    """Opens a folder to go on with what is there, or begins anew.

    Raises:
      OtherVectorsError: it holds vectors of something else, named, and is not to be overwritten.
      OSError: it cannot be written.
    """
    self.folder, self._layout = epath.Path(folder), layout
    self._about = json.loads(json.dumps(dict(about)))
    done: list[int] = []
    with hosts.together():
      if hosts.is_first():
        self._open(overwrite)
        done = [i for i in range(layout.num_shards) if self._is_whole(i)]
    self.done = frozenset(hosts.first_says(done))

  def _open(self, overwrite: bool) -> None:
    destinations.check_folder(self.folder, 'OUTPUT')
    path = self.folder / ABOUT
    content = {'about': self._about, **dataclasses.asdict(self._layout)}
    if path.exists():
      try:
        before = signed_json.load(path.read_bytes())
        differing = _differences(before, content)
      except (ValueError, TypeError, AttributeError, RecursionError):
        differing = f'{ABOUT} is damaged'
      if differing and not overwrite:
        raise OtherVectorsError(
          f'{self.folder} holds other vectors ({differing}): give another folder, or --overwrite'
        )
      if not differing:
        return
    elif not overwrite and self._is_of_another():
      raise OtherVectorsError(
        f'{self.folder} is not empty, and no {ABOUT} in it says that it holds vectors: give '
        'another folder, or --overwrite'
      )
    self.folder.mkdir(parents=True, exist_ok=True)
    for pattern in ('vectors-*.npy', 'rows-*.jsonl', 'digests-*.json', 'part-*.parquet'):
      for old in path_facts.matching(self.folder, pattern):
        old.unlink()
    storage.write_atomically(path, signed_json.dump(content, indent=2) + '\n')

  def _is_of_another(self) -> bool:
    """Whether there are files in the folder; the lease on it is none of them."""
    found = self.folder.iterdir() if self.folder.exists() else ()
    return any(lease.FILE not in path.name for path in found)

  def _is_whole(self, shard: int) -> bool:
    """Whether a shard is as it was written; in a bucket, whether its files have their sizes."""
    paths = [self.folder / name for name in self._layout.names(shard)]
    if not all(path.exists() for path in paths):
      return False
    try:
      if self._layout.form == 'parquet':
        import pyarrow.parquet as pq

        with paths[-1].open('rb') as file:
          opened = pq.ParquetFile(file, page_checksum_verification=True)
          if destinations.is_local(paths[-1]):
            for number in range(opened.num_row_groups):
              opened.read_row_group(number)
          whole = opened.metadata.num_rows == self._layout.rows_of(shard)
      else:
        told = signed_json.load(paths[-1].read_bytes())
        whole = all(told[path.name][0] == path_facts.size(path) for path in paths[:-1])
        if whole and destinations.is_local(self.folder):
          whole = all(told[path.name][1] == _digest(path) for path in paths[:-1])
    except (ValueError, OSError, KeyError, TypeError, IndexError):
      whole = False
    if not whole:
      logger.warning('%s is not as it was written: it is made again', paths[0])
    return whole

  def write(
    self, shard: int, ids: Sequence[str], texts: Sequence[str], vectors: np.ndarray
  ) -> None:
    """Writes a shard; on other hosts than the first nothing.

    Raises:
      ValueError: another number or width of vectors than the layout says.
    """
    wanted = (self._layout.rows_of(shard), self._layout.dimension)
    if vectors.shape != wanted or len(ids) != len(vectors):
      raise ValueError(f'shard {shard} takes {wanted} numbers, got {vectors.shape}')
    if not hosts.is_first():
      return
    vectors = np.ascontiguousarray(vectors, self._layout.dtype)
    names = self._layout.names(shard)
    if self._layout.form == 'parquet':
      self._put(names[0], _parquet(ids, texts if self._layout.keep_texts else None, vectors))
      return
    rows = [
      {'id': own, 'text': text} if self._layout.keep_texts else {'id': own}
      for own, text in zip(ids, texts, strict=True)
    ]
    lines = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    contents = dict(zip(names, (lines.encode(), buffer.getvalue()), strict=False))
    for name, content in contents.items():
      self._put(name, content)
    sums = {name: (len(x), hashlib.sha256(x).hexdigest()) for name, x in contents.items()}
    self._put(names[2], signed_json.dump(sums).encode())

  def _put(self, name: str, content: bytes) -> None:
    storage.write_atomically(self.folder / name, content)


def _digest(path: epath.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  old, new = ({**x['about'], **{k: v for k, v in x.items() if k != 'about'}} for x in (before, now))
  keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
  return '; '.join(f'{key} was {old.get(key)!r}, now {new.get(key)!r}' for key in keys)


def _parquet(ids: Sequence[str], texts: Sequence[str] | None, vectors: np.ndarray) -> bytes:
  import pyarrow as pa
  import pyarrow.parquet as pq

  flat = pa.array(vectors.reshape(-1))
  columns = {
    'id': pa.array(list(ids), pa.string()),
    **({'text': pa.array(list(texts), pa.string())} if texts is not None else {}),
    'embedding': pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
  }
  sink = io.BytesIO()
  pq.write_table(pa.table(columns), sink, compression='none', write_page_checksum=True)
  return sink.getvalue()


class VectorFolder:
  """A complete folder of npy shards, opened: vectors are memory maps, texts are read as asked for.

  Attributes:
    about: what the vectors depend on.
    layout: their number and width.
  """

  def __init__(self, folder: epath.PathLike):
    """Opens it.

    Raises:
      FileNotFoundError: it is none, or shards are missing.
      ValueError: it is damaged, or holds parquet.
    """
    self.path = epath.Path(folder)
    path = self.path / ABOUT
    if not path_facts.exists(path):
      raise FileNotFoundError(f'no {ABOUT} in {folder}: give a folder that `aya-train embed` wrote')
    try:
      content = signed_json.load(path.read_bytes())
      self.about: Mapping[str, Any] = content.pop('about')
      self.layout = Layout(**content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
      raise ValueError(f'{path} is damaged ({error}): embed the texts again') from error
    if self.layout.form != 'npy':
      raise ValueError(f'{folder} holds {self.layout.form}: search needs --format npy')
    shards = range(self.layout.num_shards)
    names = [self.layout.names(i) for i in shards]
    if missing := [n for each in names for n in each if not path_facts.exists(self.path / n)]:
      raise FileNotFoundError(
        f'{folder} lacks {missing[:3]}: the command that wrote it goes on where it was'
      )
    self._names = names
    self._maps: dict[int, np.ndarray] = {}
    self._texts: dict[int, tuple[Any, np.ndarray]] = {}

  def __len__(self) -> int:
    return self.layout.count

  def shard(self, number: int) -> np.ndarray:
    """Vectors of a shard, [rows, dimension], a memory map where the disk is of this machine.

    Raises:
      ValueError: a damaged file.
    """
    if number not in self._maps:
      path = self.path / self._names[number][1]
      content = self._content(number, 1)
      try:
        if destinations.is_local(path):
          found = np.load(path, mmap_mode='r', allow_pickle=False)
        else:
          found = np.load(io.BytesIO(content), allow_pickle=False)
      except (ValueError, EOFError) as error:
        raise ValueError(f'{path} is damaged ({error}). {_AGAIN}') from error
      wanted = (self.layout.rows_of(number), self.layout.dimension)
      if found.shape != wanted:
        raise ValueError(f'{path} holds {found.shape} numbers, expected {wanted}')
      self._maps[number] = found
    return self._maps[number]

  def tiles(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, float32 vectors [at most `size`, dimension]), in order."""
    first = 0
    for number in range(self.layout.num_shards):
      vectors = self.shard(number)
      for start in range(0, len(vectors), size):
        yield first + start, np.asarray(vectors[start : start + size], np.float32)
      first += len(vectors)

  def rows(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Vectors of some rows, float32."""
    found = np.zeros((len(numbers), self.layout.dimension), np.float32)
    for i, number in enumerate(numbers):
      shard, row = divmod(int(number), self.layout.shard_rows)
      found[i] = self.shard(shard)[row]
    return found

  def ids(self) -> list[str]:
    """All ids, by row."""
    return [
      json.loads(line)['id']
      for number in range(self.layout.num_shards)
      for line in bytes(self._content(number, 0)).splitlines()
    ]

  def text(self, number: int) -> str:
    """The text of a row.

    Raises:
      ValueError: texts were not kept.
    """
    shard, row = divmod(number, self.layout.shard_rows)
    if shard not in self._texts:
      content = self._content(shard, 0)
      ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord('\n')) + 1
      self._texts[shard] = content, np.concatenate([np.zeros(1, ends.dtype), ends])
    content, starts = self._texts[shard]
    record = json.loads(content[starts[row] : starts[row + 1]])
    if 'text' not in record:
      raise ValueError(f'{self.path} was written without texts (--no_texts): embed again with them')
    return record['text']

  def _content(self, shard: int, file: int) -> Any:
    """The bytes of a file of a shard, a memory map where the disk is of this machine.

    Raises:
      ValueError: they are not those that were written.
    """
    path, digests = (self.path / self._names[shard][i] for i in (file, 2))
    if destinations.is_local(path) and path_facts.size(path):
      with open(path, 'rb') as opened:
        content: Any = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    else:
      content = path.read_bytes()
    try:
      told = signed_json.load(digests.read_bytes())[path.name]
    except (ValueError, KeyError) as error:
      raise ValueError(f'{digests} is damaged ({error}). {_AGAIN}') from error
    if [len(content), hashlib.sha256(content).hexdigest()] != told:
      raise ValueError(f'{path} does not have the bytes that were written. {_AGAIN}')
    return content
