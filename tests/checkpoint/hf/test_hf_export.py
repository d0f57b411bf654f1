"""Exported folders: files, tensors, round trips, refusals. What transformers computes from them is
tested in tests/models/test_hf_parity.py, tokenizers in test_hf_tokenizer.py."""

import json

import ml_dtypes
import numpy as np
import pytest

from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_import
from tests.checkpoint import small_model

safetensors = pytest.importorskip('safetensors', reason='needs the extra `hf`')
pytest.importorskip('tokenizers', reason='needs the extra `hf`')

LAYOUTS = pytest.mark.parametrize('scan_layers', [True, False], ids=['scanned', 'unrolled'])


def read_all(folder):
  tensors = {}
  for path in sorted(folder.glob('*.safetensors')):
    with safetensors.safe_open(str(path), framework='numpy') as f:
      assert f.metadata() == {'format': 'pt'}
      tensors |= {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no mapping)
  return tensors


@LAYOUTS
@pytest.mark.parametrize('tied', [False, True], ids=['untied', 'tied'])
def test_import_of_an_export_gives_the_arrays_back(export, scan_layers, tied):
  config = small_model.config(scan_layers=scan_layers, logits_via_embedding=tied)
  params = small_model.random_params(config)
  imported = hf_import.open_folder(export(config, params))
  found = imported.in_layout(config)
  assert set(found) == set(params)
  for name, array in params.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name].read(), array, err_msg=name)
  same = {**config.architecture(), 'scan_layers': False}
  assert imported.config.architecture() == same


def test_the_folder_holds_what_transformers_and_people_look_for(export):
  folder = export(model_card='# Card', license_text='Apache')
  assert sorted(path.name for path in folder.iterdir()) == [
    'LICENSE',
    'README.md',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'special_tokens_map.json',
    'spiece.model',
    'tokenizer.json',
    'tokenizer_config.json',
  ]
  assert (folder / 'README.md').read_text() == '# Card'
  assert [path.name for path in folder.parent.iterdir()] == ['model']


def test_both_tables_are_written_when_the_head_is_untied(export):
  config = small_model.config()
  params = small_model.random_params(config)
  folder = export(config, params)
  tensors = read_all(folder)
  np.testing.assert_array_equal(tensors['shared.weight'], params['token_embedder/embedding'])
  np.testing.assert_array_equal(tensors['lm_head.weight'], params['decoder/logits_dense/kernel'].T)
  settings = json.loads((folder / 'config.json').read_text())
  assert (settings['model_type'], settings['tie_word_embeddings']) == ('mt5', False)


def test_shards_hold_every_tensor_once_within_the_limit(export):
  whole, sharded = export(out='whole'), export(out='sharded', max_shard_size='20KB')
  index = json.loads((sharded / 'model.safetensors.index.json').read_text())
  files = sorted(path.name for path in sharded.glob('*.safetensors'))
  assert len(files) > 2 and files == sorted(set(index['weight_map'].values()))
  expected = read_all(whole)
  assert index['metadata']['total_size'] == sum(array.nbytes for array in expected.values())
  assert set(index['weight_map']) == set(expected)
  for name, array in read_all(sharded).items():
    np.testing.assert_array_equal(array, expected[name])
  params = hf_import.open_folder(sharded).params
  np.testing.assert_array_equal(
    np.asarray(params['token_embedder/embedding']), expected['shared.weight']
  )


def test_large_tensors_are_written_in_row_blocks(export, monkeypatch):
  expected = read_all(export(out='at_once'))
  monkeypatch.setattr(safetensors_file, '_BLOCK_BYTES', 100)
  for name, array in read_all(export(out='in_blocks')).items():
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_bfloat16_rounds_and_is_named_in_the_config(export):
  config = small_model.config(scan_layers=False)
  params = small_model.random_params(config)
  folder = export(config, params, dtype='bfloat16')
  imported = hf_import.open_folder(folder).params
  for name, array in params.items():
    assert imported[name].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(imported[name].read(), array.astype(ml_dtypes.bfloat16))
  assert json.loads((folder / 'config.json').read_text())['torch_dtype'] == 'bfloat16'


def test_boxed_nested_jax_parameters_are_exported(export):
  import jax.numpy as jnp
  from flax import traverse_util
  from flax.core import meta

  config = small_model.config()
  params = small_model.random_params(config)
  boxed = {
    tuple(name.split('/')): meta.Partitioned(jnp.asarray(array), names=(None,) * array.ndim)
    for name, array in params.items()
  }
  folder = export(config, traverse_util.unflatten_dict(boxed), out='nested')
  expected = read_all(export(config, params, out='flat'))
  for name, array in read_all(folder).items():
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_full_folder_is_replaced_only_when_asked(export, tmp_path):
  out = tmp_path / 'model'
  out.mkdir()
  (out / 'notes.txt').write_text('mine')
  with pytest.raises(FileExistsError, match='--overwrite'):
    export()
  assert (out / 'notes.txt').read_text() == 'mine'
  export(overwrite=True)
  assert not (out / 'notes.txt').exists() and (out / 'config.json').exists()


def test_a_failed_export_leaves_the_old_folder_and_nothing_else(export, tmp_path):
  export(model_card='old')
  config = small_model.config(scan_layers=False)

  def broken(index):
    raise OSError('disk gone')

  params = small_model.random_params(config)
  shape = params['decoder/logits_dense/kernel'].shape
  params['decoder/logits_dense/kernel'] = lazy_arrays.LazyArray(shape, np.dtype('float32'), broken)
  with pytest.raises(OSError, match='disk gone'):
    export(config, params, overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ['model']
  assert (tmp_path / 'model' / 'README.md').read_text() == 'old'


@pytest.mark.parametrize(
  ('config', 'kwargs', 'message'),
  [
    ({}, {'dtype': 'float64'}, 'must be one of'),
    ({'mlp_activations': ('silu', 'relu')}, {}, 'no feed_forward_proj'),
    ({'vocab_size': 64}, {}, 'more than the 64 rows'),
  ],
)
def test_refusals_write_nothing(export, tmp_path, config, kwargs, message):
  with pytest.raises(ValueError, match=message):
    export(small_model.config(**config), **kwargs)
  assert list(tmp_path.iterdir()) == []


def test_parameters_of_another_network_are_refused(export):
  params = small_model.random_params(small_model.config(mlp_dim=8))
  with pytest.raises(ValueError, match=r'wi_0/kernel expected \(20, 3, 24\), got \(20, 3, 8\)'):
    export(small_model.config(), params)
  with pytest.raises(ValueError, match='missing'):
    export(small_model.config(scan_layers=False), params)


# float16 ------------------------------------------------------------------------------------------


@pytest.fixture
def torch_needed():
  pytest.importorskip('torch', reason='needs the extra `hf`')
  pytest.importorskip('transformers', reason='needs the extra `hf`')


def with_large_activations(params, factor):
  return {
    name: factor * array if '/mlp/' in name and name.endswith('kernel') else array
    for name, array in params.items()
  }


def test_float16_folders_hold_the_rounded_weights(export, torch_needed):
  config = small_model.config(scan_layers=False)
  params = small_model.random_params(config)
  folder = export(config, params, dtype='float16')
  imported = hf_import.open_folder(folder).params
  for name, array in params.items():
    assert imported[name].dtype == np.float16
    np.testing.assert_array_equal(imported[name].read(), array.astype(np.float16))
  assert json.loads((folder / 'config.json').read_text())['torch_dtype'] == 'float16'


def test_activations_beyond_float16_are_refused_and_leave_nothing(export, tmp_path, torch_needed):
  config = small_model.config(scan_layers=False)
  params = with_large_activations(small_model.random_params(config), 60)
  with pytest.raises(ValueError, match=r'activations of .* reach .*65504.*bfloat16'):
    export(config, params, dtype='float16')
  assert list(tmp_path.iterdir()) == []
  assert export(config, params, dtype='float16', allow_float16_overflow=True).exists()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_the_largest_activation_is_what_the_float32_model_computes(export, torch_needed, dtype):
  import torch
  import transformers

  from aya_train.checkpoint.hf import hf_torch

  config = small_model.config(scan_layers=False)
  params = with_large_activations(small_model.random_params(config), 8)
  folder = export(config, params, dtype=dtype)
  peak, where = hf_torch.activation_peak(folder, hf_torch.PROMPTS[:2])
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(folder), dtype=torch.float32)
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
  seen = {}
  for name, module in model.named_modules():
    module.register_forward_hook(
      lambda _, __, out, name=name: (
        seen.setdefault(name, []).append(
          float((out[0] if isinstance(out, tuple) else out).abs().max())
        )
        if isinstance(out, tuple) or torch.is_tensor(out)
        else None
      )
    )
  for prompt in hf_torch.PROMPTS[:2]:
    ids = torch.tensor([tokenizer(prompt)['input_ids']])
    with torch.no_grad():
      model(input_ids=ids, decoder_input_ids=torch.nn.functional.pad(ids, (1, 0))[:, :-1])
  seen.pop('lm_head')
  expected = max(max(values) for values in seen.values())
  np.testing.assert_allclose(peak, expected, rtol=1e-5)
  assert max(seen[where]) == pytest.approx(expected, rel=1e-5)


def test_weights_beyond_float16_are_refused_by_name(export):
  config = small_model.config()
  params = small_model.random_params(config)
  params['decoder/logits_dense/kernel'][0, 0] = -7e4
  with pytest.raises(ValueError, match=r'lm_head.weight holds 70000'):
    export(config, params, dtype='float16')
