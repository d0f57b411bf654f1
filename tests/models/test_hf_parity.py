"""transformers computes from an exported folder what this network computes from its parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from aya_train.checkpoint.hf import hf_export, hf_import
from aya_train.models import network
from tests.checkpoint import small_model

torch = pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')

LAYOUTS = pytest.mark.parametrize('scan_layers', [True, False], ids=['scanned', 'unrolled'])
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-4}


@pytest.fixture(scope='module')
def vocabulary_file(tmp_path_factory):
  return small_model.train_vocabulary(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture
def exported(vocabulary_file, tmp_path):
  """Returns a function from a config to its parameters, the folder, and transformers' model."""

  def run(config, **kwargs):
    params = small_model.random_params(config)
    folder = hf_export.export(params, config, vocabulary_file, tmp_path / 'model', **kwargs)
    return params, folder, load(folder)

  return run


def load(folder):
  model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
    str(folder), output_loading_info=True, dtype=torch.float32
  )
  # Nothing was drawn at random, nothing ignored.
  assert not info['missing_keys'] and not info['unexpected_keys']
  assert not info['mismatched_keys']
  return model.eval()


def tokens(rng, lengths, vocab_size):
  """int32 [B, max(lengths)] of random ids, padded with 0 behind each row's length."""
  ids = rng.integers(3, vocab_size, size=(len(lengths), max(lengths)), dtype=np.int32)
  return np.where(np.arange(max(lengths)) < np.array(lengths)[:, None], ids, 0)


def shift_right(targets):
  return np.pad(targets, ((0, 0), (1, 0)))[:, :-1]


def our_logits(params, config, inputs, targets):
  return our_logits_after(params, config, inputs, shift_right(targets), targets)


def our_logits_after(params, config, inputs, decoder_inputs, targets):
  model = network.Transformer(config)
  nested = traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in params.items()}, sep='/')
  apply = jax.jit(
    functools.partial(model.apply, enable_dropout=False),
    compiler_options={'xla_backend_optimization_level': 0},  # compiling is most of the time
  )
  return np.asarray(apply({'params': nested}, inputs, decoder_inputs, targets))


def hf_logits(model, inputs, targets):
  with torch.no_grad():
    return model(
      input_ids=torch.tensor(inputs, dtype=torch.long),
      attention_mask=torch.tensor(inputs > 0, dtype=torch.long),
      decoder_input_ids=torch.tensor(shift_right(targets), dtype=torch.long),
    ).logits.numpy()


def assert_same_logits(params, config, model, lengths, target_lengths, **tolerance):
  rng = np.random.default_rng(0)
  inputs = tokens(rng, lengths, config.vocab_size)
  targets = tokens(rng, target_lengths, config.vocab_size)
  ours = our_logits(params, config, inputs, targets)
  theirs = hf_logits(model, inputs, targets)
  real = targets > 0
  np.testing.assert_allclose(ours[real], theirs[real], **(tolerance or TOLERANCE))
  assert np.std(ours[real]) > 0.1  # logits that say nothing would agree as well


@LAYOUTS
def test_logits_are_equal(exported, scan_layers):
  config = small_model.config(scan_layers=scan_layers)
  params, _, model = exported(config)
  # Beyond 128 positions the last bucket of the relative positions is shared.
  assert_same_logits(params, config, model, [200, 150, 9, 1], [30, 160, 4, 2])


@pytest.mark.parametrize(
  'overrides',
  [
    {'mlp_activations': ('relu',)},
    {'mlp_activations': ('gelu',)},
    {
      'mlp_activations': ('silu', 'linear'),
      'relative_attention_num_buckets': 16,
      'relative_attention_max_distance': 40,
    },
  ],
  ids=['relu', 'gelu', 'gated-silu and buckets'],
)
def test_logits_of_relatives_of_mt5_are_equal(exported, overrides):
  config = small_model.config(num_encoder_layers=2, num_decoder_layers=1, **overrides)
  params, _, model = exported(config)
  assert_same_logits(params, config, model, [70, 5], [50, 7])


@LAYOUTS
def test_position_biases_of_each_layer_are_those_of_umt5(exported, scan_layers):
  config = small_model.config(scan_layers=scan_layers, relpos_bias_per_layer=True)
  params, folder, model = exported(config)
  assert type(model).__name__ == 'UMT5ForConditionalGeneration'
  model.config.tie_word_embeddings = False  # transformers 5 scales the logits otherwise
  assert_same_logits(params, config, model, [200, 150, 9, 1], [30, 160, 4, 2])
  imported = hf_import.open_folder(folder)
  assert imported.config.architecture() == {**config.architecture(), 'scan_layers': False}
  found = imported.in_layout(config)
  for name, array in params.items():
    np.testing.assert_array_equal(found[name].read(), array, err_msg=name)


def test_the_two_tables_stay_apart(exported):
  config = small_model.config()
  params, _, model = exported(config)
  assert type(model).__name__ == 'MT5ForConditionalGeneration'
  shared, head = model.shared.weight.detach().numpy(), model.lm_head.weight.detach().numpy()
  np.testing.assert_array_equal(shared, params['token_embedder/embedding'])
  np.testing.assert_array_equal(head, params['decoder/logits_dense/kernel'].T)
  assert model.encoder.embed_tokens.weight is model.shared.weight
  assert model.decoder.embed_tokens.weight is model.shared.weight
  model.lm_head.weight.data += 1  # as training would
  np.testing.assert_array_equal(model.shared.weight.detach().numpy(), shared)


def test_a_tied_head_is_tied_and_scaled(exported):
  config = small_model.config(logits_via_embedding=True)
  params, folder, model = exported(config)
  assert model.lm_head.weight is model.shared.weight
  assert not (folder / 'pytorch_model.bin').exists()
  assert_same_logits(params, config, model, [9, 5], [4, 7])


@pytest.mark.parametrize('tied', [False, True], ids=['untied', 'tied'])
def test_what_transformers_saves_again_is_read_back(exported, tmp_path, tied):
  config = small_model.config(scan_layers=False, logits_via_embedding=tied)
  params, _, model = exported(config)
  model.save_pretrained(tmp_path / 'again', max_shard_size='20KB')
  imported = hf_import.open_folder(tmp_path / 'again')
  assert imported.config.architecture() == config.architecture()
  for name, array in params.items():
    np.testing.assert_array_equal(imported.params[name].read(), array, err_msg=name)


def test_greedy_tokens_are_those_of_generate(exported):
  config = small_model.config()
  params, _, model = exported(config)
  inputs = tokens(np.random.default_rng(1), [12, 5, 8], config.vocab_size)
  steps = 8
  with torch.no_grad():
    generated = model.generate(
      torch.tensor(inputs, dtype=torch.long),
      attention_mask=torch.tensor(inputs > 0, dtype=torch.long),
      max_new_tokens=steps,
      do_sample=False,
    ).numpy()
  assert generated.shape[1] > 3 and (generated[:, 0] == 0).all()
  # Teacher forcing on the generated tokens: each is the argmax of our logits, up to its row's eos.
  before, after = generated[:, :-1].astype(np.int32), generated[:, 1:]
  greedy = our_logits_after(params, config, inputs, before, np.ones_like(before)).argmax(-1)
  running = np.cumsum(before == 1, axis=1) == 0
  np.testing.assert_array_equal(greedy[running], after[running])


def test_bfloat16_folders_load_in_bfloat16(exported):
  config = small_model.config(scan_layers=False)
  _, folder, _ = exported(config, dtype='bfloat16')
  assert transformers.AutoModelForSeq2SeqLM.from_pretrained(str(folder)).dtype == torch.bfloat16


def test_a_foreign_model_is_imported(tmp_path):
  """Random weights of transformers' own classes, not ours, so no error can cancel out."""
  settings = {'vocab_size': 60, 'd_model': 18, 'd_kv': 5, 'd_ff': 22, 'num_layers': 2}
  settings |= {'num_decoder_layers': 3, 'num_heads': 4}
  torch.manual_seed(0)
  hf = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**settings)).eval()
  hf.lm_head.weight = torch.nn.Parameter(torch.randn(60, 18))
  with torch.no_grad():
    for name, parameter in hf.named_parameters():
      parameter.copy_(
        1 + 0.2 * torch.randn_like(parameter) if 'norm' in name else torch.randn_like(parameter) / 4
      )
  hf.save_pretrained(tmp_path / 'foreign')
  imported = hf_import.open_folder(tmp_path / 'foreign')
  config = dataclasses.replace(imported.config, scan_layers=True)
  arrays = {name: array.read() for name, array in imported.in_layout(config).items()}
  assert_same_logits(arrays, config, hf, [30, 8], [12, 3])
