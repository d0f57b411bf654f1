"""TFDS builders of the data sources: their base class, and how a finished one is opened."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_builder

from aya_train.tasks import catalog, storage
from aya_train.tasks.building import local_info, row_splits, rows

MANIFEST = 'manifest.json'


class SourceBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
  """Rows of `rows.COLUMNS`, all strings, in TFRecord shards.

  A split holds one language where the source is read by language: `train_yor`. So a task of a
  language reads its own files only.

  A subclass says `source` (a row of `sources.SOURCES`), `description`, `citation`, `homepage` and
  `terms`, and has a config for each constituent.
  """

  source: ClassVar[str] = ''
  description: ClassVar[str] = ''
  citation: ClassVar[str] = ''
  homepage: ClassVar[str] = ''
  terms: ClassVar[str] = ''
  # Nothing is fetched by TFDS, which would look for a file of checksums.
  url_infos: ClassVar[dict[str, Any]] = {}

  def __init__(self, **kwargs: Any):
    self._finished: tuple[Sequence[row_splits.Split], epath.Path, Mapping[str, Any]] | None = None
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return local_info.LocalInfo(
      builder=self,
      description=self.description,
      features=tfds.features.FeaturesDict({c: tfds.features.Text() for c in rows.COLUMNS}),
      supervised_keys=('inputs', 'targets'),
      homepage=self.homepage,
      citation=self.citation,
      license=self.terms,
    )

  @property
  def constituent(self) -> str:
    """Name of the config; '' for a source without constituents."""
    return '' if self.builder_config is None else self.builder_config.name

  def publish(
    self, splits: Sequence[row_splits.Split], work_dir: epath.PathLike, manifest: Mapping[str, Any]
  ) -> None:
    """Makes finished splits this builder's data; the folder appears by a rename at the end."""
    self._finished = splits, epath.Path(work_dir), manifest
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it downloads
      self.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False, compute_stats='skip')
      )

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    del dl_manager, download_config
    if self._finished is None:
      raise ValueError(
        f'{self.source} is built by `aya-train prepare {self.source}` '
        '(aya_train.tasks.building.source_build.build), which reads its release and calls `publish`'
      )
    splits, work_dir, manifest = self._finished
    storage.claim(self.data_path)
    infos = []
    for split in splits:
      count = len(split.shard_lengths)
      for i in range(count):
        name = row_splits.shard_name(self.source, split.name, i, count)
        part = self._part_of(work_dir, split, name)
        _link_or_copy(part, self.data_path / name)
      template = tfds.core.ShardedFileTemplate(
        data_dir=self.data_path,
        dataset_name=self.source,
        split=split.name,
        filetype_suffix='tfrecord',
      )
      lengths = list(split.shard_lengths)
      infos.append(tfds.core.SplitInfo(split.name, lengths, split.num_bytes, template))
    self.info.set_splits(tfds.core.splits.SplitDict(infos))
    storage.release(self.data_path)
    text = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + '\n'
    (self.data_path / MANIFEST).write_text(text)

  def _part_of(self, work_dir: epath.Path, split: row_splits.Split, name: str) -> epath.Path:
    folder = work_dir / 'splits' / self.constituent
    return next(path for d in folder.iterdir() if (path := d / name).exists())


def _link_or_copy(source: epath.Path, target: epath.Path) -> None:
  """A second name for a file, which costs no space; a copy where there are no hard links."""
  try:
    os.link(source, target)
  except OSError:
    if str(source).startswith('gs://'):
      source.copy(target)
    else:
      shutil.copyfile(source, target)


def folder(
  source: str, constituent: str = '', data_dir: epath.PathLike | None = None
) -> epath.Path:
  """Where TFDS keeps a config of a source; nothing is opened."""
  row = catalog.by_name(source)
  root = epath.Path(data_dir or storage.tfds_dir()) / source
  return (root / constituent if constituent else root) / row.version


def empty_manifest(path: epath.Path) -> epath.Path:
  """Where the manifest of a config is of which nothing was to be kept; `path` is its `folder`."""
  return path.parent / f'{path.name}.empty.json'


def open_built(
  source: str, constituent: str = '', data_dir: epath.PathLike | None = None
) -> Mapping[str, Any]:
  """The manifest of a finished config, every file of which is there in full.

  A config without a row in the languages that were asked for is finished, and has no splits.

  Raises:
    FileNotFoundError: it is not built; the message names the command.
    ValueError: a file is missing or has another size.
  """
  path = folder(source, constituent, data_dir)
  name = f'{source}.{constituent}' if constituent else source
  if not (path / MANIFEST).exists():
    if (empty := empty_manifest(path)).exists():
      manifest = json.loads(empty.read_text())
      if manifest['options']['languages']:
        return manifest
      raise FileNotFoundError(
        f'{name}: {manifest["release"]["place"] or "the release"} has no row of it; if it should, '
        f'remove {empty} and run `aya-train prepare {name}` with a complete release'
      )
    raise FileNotFoundError(
      f'{name} is not built at {path}; run `aya-train prepare {name}` (with --data_dir FOLDER for '
      f'files of your own), or set {storage.CACHE_ENV} to the cache directory that holds it'
    )
  return json.loads((path / MANIFEST).read_text())


def shard_paths(
  source: str, constituent: str, split: str, count: int, data_dir: epath.PathLike | None = None
) -> list[str]:
  """Files of a split."""
  path = folder(source, constituent, data_dir)
  return [str(path / row_splits.shard_name(source, split, i, count)) for i in range(count)]
