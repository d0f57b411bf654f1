"""Opens model folders of Hugging Face transformers as checkpoints of our network."""

import numpy as np
from etils import epath

from aya_train.checkpoint import contents, layouts, names
from aya_train.checkpoint.hf import hf_config, hf_files, hf_tokenizer


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
  settings = hf_files.read_config(folder)
  tensors = hf_files.open_tensors(folder)
  config = hf_config.from_hf_config(
    settings, has_head='lm_head.weight' in tensors, where=str(folder)
  )
  tables = [tensors[name] for name in ('lm_head.weight', names.HF_TABLE) if name in tensors]
  if config.logits_via_embedding and not np.array_equal(tables[0].read(), tables[-1].read()):
    raise ValueError(
      f'{folder}: config.json ties the head to the input table, but the two tensors differ; set '
      'tie_word_embeddings to false in config.json if the head was trained on its own'
    )
  params = layouts.from_hf(tensors, layouts.table_of(config), str(folder))
  layouts.check(params, config, str(folder))
  vocabulary = folder / hf_tokenizer.MODEL_FILE
  return contents.Checkpoint(
    where=str(folder),
    config=config,
    params=params,
    vocabulary_file=str(vocabulary) if vocabulary.exists() else '',
  )
