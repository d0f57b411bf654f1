"""Opens model folders of Hugging Face transformers as checkpoints of our network."""

from etils import epath

from aya_train.checkpoint import contents, layouts, names, sha256sums
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import hf_config, hf_files, hf_vocabulary
from aya_train.models import t5_config

_HEAD = 'lm_head.weight'


def open_folder(folder: epath.PathLike) -> contents.Checkpoint:
  """Opens a T5 1.1, mT5, umT5 or Aya folder written by `hf_export.export` or by transformers.

  Args:
    folder: with config.json and model.safetensors, or shards and their index; also in a bucket.

  Returns:
    The checkpoint, unrolled, its arrays in the dtype of the files.

  Raises:
    FileNotFoundError: no config.json or no safetensors, with the way out when there is a .bin.
    ValueError: the model is not one of this network, or names or shapes do not fit config.json.
  """
  folder = epath.Path(folder)
  sha256sums.check(folder)
  content = hf_files.read_config(folder)
  tensors = hf_files.open_tensors(folder)
  has_head = _HEAD in tensors
  config = hf_config.from_hf_config(content, has_head=has_head, where=str(folder))
  settings = hf_config.settings_of(content, hf_files.read_generation_config(folder), str(folder))
  _check_tables(tensors, config, str(folder))
  if hf_config.needs_head(config, has_head=has_head):
    table = names.hf_names(tensors, tied=True)[names.HF_TABLE]
    tensors = {**tensors, _HEAD: tensors[table]}
  params = layouts.from_hf(tensors, layouts.table_of(config), str(folder))
  layouts.check(params, config, str(folder))
  vocabulary = hf_vocabulary.file_of(folder)
  return contents.Checkpoint(
    where=str(folder),
    config=config,
    params=params,
    vocabulary_file='' if vocabulary is None else str(vocabulary),
    settings=settings,
    tokenizer_folder=str(folder) if hf_vocabulary.has_tokenizer(folder) else '',
  )


def _check_tables(tensors: lazy_arrays.Arrays, config: t5_config.T5Config, where: str) -> None:
  """Refuses second input tables that differ, and a head that differs where it is tied."""
  others = [name for name in names.HF_TABLE_ALIASES if name in tensors]
  tied = [_HEAD] if config.logits_via_embedding and _HEAD in tensors else []
  first, *rest = [name for name in (names.HF_TABLE, *others, *tied) if name in tensors] or ['']
  for name in rest:
    if not lazy_arrays.first_difference(name, tensors[first], tensors[name]):
      continue
    if name == _HEAD:
      raise ValueError(
        f'{where}: config.json ties the head to the input table and scales the output, but '
        f'{_HEAD} and {first} differ; set tie_word_embeddings and scale_decoder_outputs to false '
        'in config.json if the head was trained on its own, for outputs that are not scaled'
      )
    raise ValueError(
      f'{where}: {first} and {name} differ: the network here has one input table for encoder and '
      'decoder. Take the folder as it was before the tables were trained apart'
    )
