"""Where a source's released files lie: a local folder, a bucket, or the Hugging Face hub."""

import dataclasses
import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from aya_train import path_facts
from aya_train.tasks import catalog
from aya_train.tasks.building import records
from aya_train.tasks.building.read_report import DamagedFileError

# What downloads leave behind when they are cut off.
_HALF = ('.incomplete', '.part', '.partial', '.tmp', '.crdownload', '.download', '.aria2')
_SHARD = re.compile(r'^(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<ending>\..+)$')


@dataclasses.dataclass(frozen=True)
class ReleasedFile:
  """One file: its path inside the release (with '/'), and its size in bytes."""

  name: str
  size: int


class Hub(Protocol):
  """What is used of the hub, so that tests can stand in for it."""

  def list(self, repository: str, revision: str | None) -> tuple[str, Sequence[ReleasedFile]]:
    """The commit that a revision names, and its files."""

  def download(self, repository: str, commit: str, name: str) -> str:
    """Local path of a whole file; a download that was cut off goes on where it stopped."""


class HuggingFaceHub:
  """The real hub, through huggingface_hub (a token, if needed, from `hf auth login`)."""

  def list(self, repository: str, revision: str | None) -> tuple[str, Sequence[ReleasedFile]]:
    import huggingface_hub

    info = huggingface_hub.HfApi().dataset_info(
      repository, revision=revision, files_metadata=True, timeout=60
    )
    files = tuple(ReleasedFile(s.rfilename, s.size or 0) for s in info.siblings or ())
    return info.sha or revision or 'main', files

  def download(self, repository: str, commit: str, name: str) -> str:
    import huggingface_hub

    return huggingface_hub.hf_hub_download(
      repository, name, repo_type='dataset', revision=commit, etag_timeout=60
    )


HUB: Hub = HuggingFaceHub()


@dataclasses.dataclass(frozen=True)
class Release:
  """The files of a source, wherever they are.

  Attributes:
    place: folder, or 'hub:<repository>'.
    revision: commit on the hub; '' elsewhere.
    files: all files that can be read, sorted by name.
  """

  place: str
  revision: str
  files: tuple[ReleasedFile, ...]

  @property
  def on_hub(self) -> bool:
    return self.place.startswith('hub:')

  def path(self, file: ReleasedFile) -> str:
    """A path to read the file at; downloads it first if it is on the hub.

    Raises:
      DamagedFileError: the local copy has another size than the release says.
    """
    if self.on_hub:
      path = HUB.download(self.place.removeprefix('hub:'), self.revision, file.name)
    else:
      path = os.fspath(epath.Path(self.place) / file.name)
    size = path_facts.size(path)
    if file.size and size != file.size:
      raise DamagedFileError(
        f'{path}: {size:,} bytes, the release has {file.size:,}: half downloaded, or changed'
      )
    return path


def find(
  repository: str | None, place: epath.PathLike | None = None, revision: str | None = None
) -> Release:
  """The release in a folder, or on the hub if no folder is given.

  Args:
    repository: hub data set, such as 'CohereForAI/aya_dataset'; None if there is none.
    place: local folder or gs://..., a download of that repository.
    revision: branch, tag or commit on the hub.

  Raises:
    FileNotFoundError: no such folder, or nothing in it that can be read.
    ValueError: neither a repository nor a folder.
    OSError: the hub cannot be reached; the message says what to do.
  """
  if place is None:
    if repository is None:
      raise ValueError('this source is not released on the hub: give --data_dir, its folder')
    return _on_hub(repository, revision)
  folder = epath.Path(place).expanduser()
  if not path_facts.exists(folder):
    raise FileNotFoundError(f'no folder {folder}; --data_dir names one that holds the release')
  found = sorted(_walk(folder, ''), key=lambda f: f.name)
  _refuse_half_downloads(folder, found)
  files = tuple(f for f in found if records.is_readable(f.name))
  if not files:
    raise FileNotFoundError(
      f'{folder} holds no .parquet, .jsonl, .jsonl.gz or .zip file{_megatron(found)}'
    )
  return Release(os.fspath(folder), '', files)


def _megatron(files: Sequence[ReleasedFile]) -> str:
  """A hint where a folder holds token ids, which end as `<name>_document.idx`."""
  binaries = [file.name for file in files if file.name.endswith('_document.idx')]
  return f'. {catalog.NOT_READ["xp3megds"]}; got {binaries[0]}' if binaries else ''


def _on_hub(repository: str, revision: str | None) -> Release:
  try:
    commit, files = HUB.list(repository, revision)
  except ImportError as error:
    raise ValueError(
      "huggingface_hub is not installed: pip install 'aya-train[hf]', or give --data_dir, a folder "
      f'with the files of {repository}'
    ) from error
  except Exception as error:
    raise OSError(
      f'cannot list {repository} on the hub: {str(error).splitlines()[0][:200]}. Check the network '
      'and `hf auth login`, or give --data_dir, a folder with its files'
    ) from error
  readable = sorted((f for f in files if records.is_readable(f.name)), key=lambda f: f.name)
  return Release(f'hub:{repository}', commit, tuple(readable))


def _walk(folder: epath.Path, prefix: str) -> list[ReleasedFile]:
  found = []
  for child in folder.iterdir():
    if path_facts.is_dir(child):
      # The hub's own cache and git keep files of the same endings that are no part of a release.
      if child.name not in ('.git', '.ipynb_checkpoints'):
        found += _walk(child, f'{prefix}{child.name}/')
    else:
      found.append(ReleasedFile(prefix + child.name, path_facts.size(child)))
  return found


def _refuse_half_downloads(folder: epath.Path, files: Sequence[ReleasedFile]) -> None:
  half = [f.name for f in files if f.name.endswith(_HALF)]
  if half:
    raise DamagedFileError(
      f'{folder}: half downloaded: {", ".join(half[:5])}'
      + (f' and {len(half) - 5} more' if len(half) > 5 else '')
      + '; finish or remove them'
    )


def refuse_missing_shards(files: Sequence[ReleasedFile], place: str) -> None:
  """Refuses a set `*-00000-of-00007.parquet` of which some are not there.

  Raises:
    DamagedFileError: with the first missing names.
  """
  seen: dict[tuple[str, int, str], set[int]] = {}
  for file in files:
    if match := _SHARD.match(file.name):
      family = (match['stem'], int(match['count']), match['ending'])
      seen.setdefault(family, set()).add(int(match['index']))
  missing = [
    f'{stem}-{i:05d}-of-{count:05d}{ending}'
    for (stem, count, ending), indexes in sorted(seen.items())
    for i in range(count)
    if i not in indexes
  ]
  if missing:
    raise DamagedFileError(
      f'{place}: {len(missing)} shards are missing: {", ".join(missing[:5])}'
      + (' ...' if len(missing) > 5 else '')
    )


def matching(files: Sequence[ReleasedFile], pattern: str) -> list[ReleasedFile]:
  """Files whose whole name matches a shell pattern ('*' crosses '/')."""
  return [f for f in files if fnmatch.fnmatchcase(f.name, pattern)]


def describe(release: Release) -> Mapping[str, Any]:
  """What a manifest keeps of a release."""
  return {
    'place': release.place,
    'revision': release.revision,
    'files': len(release.files),
    'bytes': sum(f.size for f in release.files),
  }
