"""Model folders that cannot be opened. That exports can is tested in test_hf_export.py."""

import json

import pytest

from aya_train.checkpoint.hf import hf_import

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
