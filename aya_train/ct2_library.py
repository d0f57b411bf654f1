"""CTranslate2, before it is imported."""

import os
import platform
from typing import Any

from etils import epath

MODEL = 'model.bin'
PIECES = 'shared_vocabulary.json'
ENCODER = 'embedding.json'


def is_folder(path: epath.PathLike) -> bool:
  """Whether a folder is what `convert --to ct2` writes."""
  folder = epath.Path(path)
  return (folder / MODEL).exists() and (folder / PIECES).exists()


def is_encoder_folder(path: epath.PathLike) -> bool:
  """Whether a folder is what `convert --to ct2` writes of a sentence encoder."""
  folder = epath.Path(path)
  return (folder / MODEL).exists() and (folder / ENCODER).exists()


def prefer_mkl() -> None:
  """Lets CTranslate2 multiply int8 matrices with MKL, if the package is not imported yet.

  On processors of AMD it takes oneDNN, whose int8 products without VNNI add pairs in 16 bits and
  saturate (oneDNN, "Nuances of int8 computations"): several tenths of a nat are lost to that and
  not to the quantised weights. Other architectures than x86 have no MKL.
  """
  if platform.machine().lower() in ('x86_64', 'amd64'):
    os.environ.setdefault('CT2_USE_MKL', '1')


def imported(folder: epath.PathLike) -> Any:
  """The package, with MKL preferred, to run the model of a folder.

  Raises:
    ModuleNotFoundError: the extra `quantised` is not installed.
  """
  prefer_mkl()
  try:
    import ctranslate2
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'{folder} is a CTranslate2 model, and ctranslate2 is not installed: '
      "pip install 'aya-train[quantised]'"
    ) from error
  return ctranslate2
