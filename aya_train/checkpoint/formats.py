"""The layouts a checkpoint may have, and the one place that tells them apart.

After `detect` the program knows a single layout; `read` gives parameters in the model's own shape
and sharding whatever it was.
"""

import dataclasses
import enum
from typing import Any

import jax
from etils import epath

from aya_train import partitioning
from aya_train.checkpoint import manager
from aya_train.models import seq2seq, t5_config


class Format(enum.Enum):
  """Each layout in one sentence."""

  NATIVE = 'native'  # ours: a step folder with Orbax items `params`, `training`, `metadata`
  HF = 'hf'  # Hugging Face: config.json beside *.safetensors


@dataclasses.dataclass(frozen=True)
class Source:
  """A checkpoint that exists, and its layout."""

  path: epath.Path
  format: Format


def detect(path: epath.PathLike) -> Source:
  """Names the layout of a checkpoint.

  Raises:
    FileNotFoundError: nothing there.
    ValueError: a layout that cannot be read, with the way out.
  """
  path = epath.Path(path)
  if not path.exists():
    raise FileNotFoundError(
      f'no checkpoint at {path}: the path does not exist. INITIAL_CHECKPOINT_PATH takes a MODEL_DIR, '
      'one of its checkpoints/<step> folders, or a Hugging Face folder; None trains from scratch'
    )
  if (path / 'config.json').exists():
    return Source(path, Format.HF)
  return Source(manager.find(path), Format.NATIVE)


def read(source: Source, abstract_params: Any, config: t5_config.T5Config) -> tuple[Any, int]:
  """Parameters laid out as `abstract_params`, and the step they were saved at (0 if unknown).

  Raises:
    ValueError: another architecture; names and shapes are listed.
  """
  if source.format is Format.NATIVE:
    params = manager.read_params(source.path, abstract_params)
    return params, int(manager.read_metadata(source.path)['step'])
  from aya_train.checkpoint import hf_import  # needs safetensors, an extra

  return hf_import.read(source.path, abstract_params, config), 0


def read_for(
  model: seq2seq.EncoderDecoderModel, partitioner: partitioning.Partitioner, path: epath.PathLike
) -> Any:
  """Parameters of a checkpoint for a model, sharded over the partitioner's mesh."""
  source = detect(path)
  abstract, axes = seq2seq.parameter_axes(model)
  shardings = partitioner.shardings(axes, abstract)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )
  return read(source, abstract, model.config)[0]
