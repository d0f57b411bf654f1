"""A short name for what a checkpoint's files hold, found without reading all of them."""

import hashlib

from etils import epath

from aya_train.checkpoint import sha256sums

_WHOLE = 1 << 20  # bytes of a file that is read as it is; of longer ones both ends
_END = 1 << 16
_READ = 64  # files of which the content counts, beside names and sizes of all
_FOLDERS = 64  # that are looked into; a bucket is asked for each
_ABOUT = ('.md', '.html', '.txt', '.jsonl')  # which no model computes with


def of(path: epath.Path) -> str:
  """Twelve hexadecimal digits of a checkpoint's files: the same wherever a copy of it lies.

  Args:
    path: a folder or file that `formats.detect` named.
  """
  digest = hashlib.sha256()
  files = [path] if path.is_file() else _files(path)
  kept = [file for file in files if file.suffix not in _ABOUT and file.name != sha256sums.NAME]
  sizes = {file: file.stat().length for file in kept}
  for file, size in sizes.items():
    digest.update(f'{file.relative_to(path) if file != path else ""}\0{size}\0'.encode())
  small_first = sorted(kept, key=lambda file: (sizes[file] > _WHOLE, kept.index(file)))
  for file in small_first[:_READ]:
    with file.open('rb') as opened:
      digest.update(opened.read(_WHOLE if sizes[file] <= _WHOLE else _END))
      if sizes[file] > _WHOLE:
        opened.seek(sizes[file] - _END)
        digest.update(opened.read(_END))
  return digest.hexdigest()[:12]


def _files(folder: epath.Path) -> list[epath.Path]:
  """Files of a folder and those in it, breadth first."""
  found, folders = [], [folder]
  for inner in folders:  # which grows
    for path in sorted(inner.iterdir()):
      if not path.is_dir():
        found.append(path)
      elif len(folders) < _FOLDERS:
        folders.append(path)
  return found
