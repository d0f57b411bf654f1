"""Small files of benchmarks in their released shapes, and the real ones beside the repository."""

import contextlib
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import seqio

import aya_train.tasks  # noqa: F401  (registers)
from aya_train.tasks.building import releases
from aya_train.tasks.eval import eval_releases

SHARED = pathlib.Path(__file__).parents[3].parent / 'shared/data'


def need(folder):
  """Skips a test where the real files are not beside the repository."""
  if not (SHARED / folder).is_dir():
    pytest.skip(f'no {SHARED / folder}')


class NoHub:
  """Stands in for the hub, which cannot be reached."""

  def list(self, repository, revision):
    raise ConnectionError('no network')

  def download(self, repository, commit, name):
    raise ConnectionError('no network')


class LocalHub:
  """Stands in for the hub: a folder of repositories."""

  def __init__(self, folder):
    self._folder = folder
    self.asked = []

  def list(self, repository, revision):
    self.asked.append((repository, revision))
    root = self._folder / repository
    files = [path for path in root.rglob('*') if path.is_file()]
    return 'c0ffee00', [
      releases.ReleasedFile(str(path.relative_to(root)), path.stat().st_size) for path in files
    ]

  def download(self, repository, commit, name):
    return str(self._folder / repository / name)


@contextlib.contextmanager
def in_force(folder, hub=None):
  """The folder of all benchmarks, for a while; the hub is not reached."""
  before = releases.HUB
  releases.HUB = hub or NoHub()
  eval_releases.set_eval_data_dir(folder)
  eval_releases.forget_listings()
  try:
    yield
  finally:
    releases.HUB = before
    eval_releases.set_eval_data_dir(None)
    eval_releases.forget_listings()


def rows(name, split, folder=SHARED, hub=None):
  """All rows of a task."""
  with in_force(folder, hub):
    return seqio.TaskRegistry.get(name).source.rows(split)


def write(folder, name, content):
  """A file of text, JSON lines or parquet, by its ending."""
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if name.endswith('.parquet'):
    pq.write_table(pa.Table.from_pylist(content), path)
  elif name.endswith('.jsonl'):
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in content))
  elif name.endswith('.json') and not isinstance(content, str):
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1))
  else:
    path.write_text(content)
  return path
