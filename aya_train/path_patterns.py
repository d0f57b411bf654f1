"""Files of a folder by a pattern of their names, whatever the folder itself is called."""

import glob
import os

from etils import epath


def matching(folder: epath.PathLike, pattern: str) -> list[epath.Path]:
  """What is in a folder and fits a pattern, in order; nothing where there is no folder.

  epath's own `glob` takes brackets in the folder's name for a pattern too, and finds nothing in
  'runs/[lr=1e-3]'.
  """
  return sorted(epath.Path(glob.escape(os.fspath(folder))).glob(pattern))
