"""Model folders that cannot be opened. That exports can is tested in test_hf_export.py."""

import json

import jax
import numpy as np
import pytest

from aya_train.checkpoint.hf import hf_files, hf_import
from tests.checkpoint import small_model

pytest.importorskip('safetensors', reason='needs the extra `hf`')
pytest.importorskip('tokenizers', reason='needs the extra `hf`')


def test_import_tells_the_way_out(tmp_path, export):
  with pytest.raises(FileNotFoundError, match=r'no config\.json'):
    hf_import.open_folder(tmp_path)
  folder = export()
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  with pytest.raises(FileNotFoundError, match='save_pretrained'):
    hf_import.open_folder(folder)


def test_an_index_that_leaves_the_folder_is_refused(export):
  folder = export(max_shard_size=20_000)
  index = json.loads((folder / 'model.safetensors.index.json').read_text())
  index['weight_map']['shared.weight'] = '../elsewhere/model.safetensors'
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  with pytest.raises(ValueError, match='outside its folder'):
    hf_import.open_folder(folder)


def test_a_whole_file_is_read_before_shards_as_in_transformers(export, caplog):
  transformers = pytest.importorskip('transformers')
  folder = export(max_shard_size=20_000)
  params = jax.tree.map(lambda x: 2 * x, small_model.random_params(small_model.config()))
  (export(params=params, out='other') / 'model.safetensors').rename(folder / 'model.safetensors')
  loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
  table = hf_files.open_tensors(folder)['shared.weight'].read()
  np.testing.assert_array_equal(table, loaded.shared.weight.detach().numpy())
  assert 'model.safetensors is read' in caplog.text


def test_an_index_of_the_whole_file_is_no_second_set(export, caplog):
  folder = export()
  names = hf_files.open_tensors(folder)
  index = {'weight_map': dict.fromkeys(names, 'model.safetensors')}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  assert hf_files.open_tensors(folder).keys() == names.keys()
  assert not caplog.text
