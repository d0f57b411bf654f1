"""GGUF files hold the network, the vocabulary and the settings that llama.cpp's T5 reads."""

import numpy as np
import pytest

from aya_train.checkpoint.arrays import lazy_arrays, safetensors_file
from aya_train.checkpoint.hf import hf_export, hf_files, hf_tokenizer, hf_torch
from aya_train.export import gguf_file
from tests.checkpoint import small_model

gguf = pytest.importorskip('gguf', reason='needs the extra `quantised`')
pytest.importorskip('safetensors', reason='needs the extra `hf`')

# Largest error of a weight over the largest of its block of 32, by the format's number of levels.
ROUNDING = {'f32': 0, 'bf16': 2**-8, 'f16': 2**-11, 'q8_0': 1 / 220, 'q5_0': 1 / 14, 'q4_0': 1 / 7}


@pytest.fixture(scope='module')
def hf_folder(vocabulary_file, tmp_path_factory):
  made = {}

  def run(**overrides):
    # Rows of 32 and 64: multiples of the block, unlike those of small_model's own shape.
    config = small_model.config(**{'emb_dim': 32, 'mlp_dim': 64, 'scan_layers': False, **overrides})
    key = tuple(overrides.items())
    if key not in made:
      folder = tmp_path_factory.mktemp('gguf') / 'smallest-mt5'
      made[key] = hf_export.export(
        small_model.random_params(config), config, vocabulary_file, folder
      )
    return made[key]

  return run


@pytest.fixture(scope='module')
def converted(hf_folder, tmp_path_factory):
  """An open file by its quantisation; gguf's reader takes seconds for a vocabulary."""
  made = {}

  def run(quantisation='f32', **overrides):
    key = (quantisation, *overrides.items())
    if key not in made:
      folder = tmp_path_factory.mktemp('converted') / 'out'
      gguf_file.to_gguf(
        hf_folder(**overrides), folder, quantisation=quantisation, context_length=77
      )
      made[key] = gguf_file.read(folder)
    return made[key]

  return run


def tensors(folder):
  opened = hf_files.open_tensors(folder)
  return {name: tensor.read() for name, tensor in opened.items()}


def fields(file):
  return {name: field.contents() for name, field in file.reader.fields.items()}


@pytest.mark.parametrize('quantisation', ROUNDING)
def test_weights_read_back_are_those_of_the_folder_up_to_rounding(
  hf_folder, converted, quantisation
):
  expected, found = tensors(hf_folder()), converted(quantisation).weights()
  assert set(found) == set(expected)
  for name, array in expected.items():
    assert found[name].shape == array.shape
    scale = np.abs(array).max(-1, keepdims=True)
    error = np.abs(found[name] - array) / np.maximum(scale, 1e-30)
    assert error.max() <= ROUNDING[quantisation], name
    if array.ndim == 1 or 'relative_attention_bias' in name:
      np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.heavy
def test_weights_without_a_gate_have_their_names(hf_folder, converted):
  overrides = {'mlp_activations': ('relu',)}
  assert set(converted(**overrides).weights()) == set(tensors(hf_folder(**overrides)))


def test_the_file_gets_smaller_with_each_quantisation(converted):
  sizes = [converted(q).path.stat().length for q in ('f32', 'bf16', 'q8_0', 'q5_0', 'q4_0')]
  assert sizes == sorted(set(sizes), reverse=True)


def test_the_head_is_q8_0_at_the_smallest_and_odd_rows_stay_float32(hf_folder):
  types = gguf.GGMLQuantizationType
  assert gguf_file.tensor_type('lm_head.weight', (640, 32), 'q4_0') is types.Q8_0
  assert gguf_file.tensor_type('lm_head.weight', (640, 32), 'bf16') is types.BF16
  assert gguf_file.tensor_type('shared.weight', (640, 32), 'q4_0') is types.Q4_0
  assert (
    gguf_file.tensor_type('encoder.block.0.layer.0.SelfAttention.q.weight', (21, 32), 'q4_0')
    is types.Q4_0
  )
  assert (
    gguf_file.tensor_type('encoder.block.0.layer.0.SelfAttention.o.weight', (32, 21), 'q4_0')
    is types.F32
  )
  assert gguf_file.tensor_type('decoder.final_layer_norm.weight', (32,), 'q4_0') is types.F32


def test_a_tied_head_is_written_scaled(converted):
  found = converted(logits_via_embedding=True).weights()
  np.testing.assert_allclose(found['lm_head.weight'], found['shared.weight'] * 32**-0.5, rtol=1e-6)


def test_position_biases_of_each_layer_are_kept(hf_folder, converted):
  overrides = {'relpos_bias_per_layer': True}
  expected, found = tensors(hf_folder(**overrides)), converted(**overrides).weights()
  biases = [name for name in expected if 'relative_attention_bias' in name]
  assert len(biases) == 3 + 2
  for name in biases:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_settings_are_those_of_the_network(converted):
  found = fields(converted())
  assert found['general.architecture'] == 't5'
  assert found['general.name'] == 'smallest-mt5'
  expected = {
    'block_count': 3,
    'decoder_block_count': 2,
    'embedding_length': 32,
    'feed_forward_length': 64,
    'attention.head_count': 3,
    'attention.key_length': 7,
    'attention.value_length': 7,
    'attention.relative_buckets_count': 32,
    'context_length': 77,
    'decoder_start_token_id': 0,
  }
  assert {name: found[f't5.{name}'] for name in expected} == expected
  assert found['t5.attention.layer_norm_rms_epsilon'] == pytest.approx(1e-6)


def test_the_vocabulary_is_the_sentencepiece_file_and_named_padding(converted, vocabulary_file):
  found = fields(converted())
  model = hf_tokenizer.read_vocabulary(vocabulary_file)
  count, kinds = len(model.pieces), found['tokenizer.ggml.token_type']
  assert found['tokenizer.ggml.model'] == 't5'
  assert found['tokenizer.ggml.tokens'][:count] == [piece.piece for piece in model.pieces]
  np.testing.assert_array_equal(
    np.float32(found['tokenizer.ggml.scores'][:count]),
    np.float32([piece.score for piece in model.pieces]),
  )
  names = found['tokenizer.ggml.tokens']
  assert len(names) == len(set(names)) == small_model.VOCAB_ROWS
  assert {names[i]: gguf.TokenType(kinds[i]).name for i in (0, 2, 3, count - 1)} == {
    '<pad>': 'CONTROL',
    '<unk>': 'UNKNOWN',
    '<0x00>': 'BYTE',
    '<extra_id_0>': 'USER_DEFINED',
  }
  assert {gguf.TokenType(kind).name for kind in kinds[count:]} == {'UNUSED'}
  assert bytes(found['tokenizer.ggml.precompiled_charsmap']) == (
    model.normalizer_spec.precompiled_charsmap
  )
  ids = {'padding': 0, 'eos': 1, 'unknown': 2}
  assert {name: found[f'tokenizer.ggml.{name}_token_id'] for name in ids} == ids
  assert (found['tokenizer.ggml.add_bos_token'], found['tokenizer.ggml.add_eos_token']) == (
    False,
    True,
  )


def test_row_blocks_change_nothing(hf_folder, tmp_path, monkeypatch):
  whole = gguf_file.to_gguf(hf_folder(), tmp_path / 'whole', quantisation='q4_0')
  monkeypatch.setattr(safetensors_file, '_BLOCK_BYTES', 1000)
  blocks = gguf_file.to_gguf(hf_folder(), tmp_path / 'blocks', quantisation='q4_0')
  name = 'model-q4_0.gguf'
  assert (blocks / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'mlp_activations': ('silu', 'linear')}, 'MLPs of'),
    ({'relative_attention_max_distance': 64}, 'end at 128'),
  ],
)
def test_networks_that_llama_cpp_does_not_compute_are_refused(
  hf_folder, tmp_path, overrides, message
):
  with pytest.raises(ValueError, match=message):
    gguf_file.to_gguf(hf_folder(**overrides), tmp_path / 'out')
  assert list(tmp_path.iterdir()) == []


def test_numbers_that_a_quantisation_cannot_hold_are_refused():
  most = gguf_file._LARGEST['Q8_0']
  for value, kind in ((2 * most, 'Q8_0'), (np.nan, 'Q8_0'), (np.inf, 'F32')):
    tensor = lazy_arrays.of(np.full((2, 32), value, np.float32))
    with pytest.raises(ValueError, match=r'wo holds .*(q8_0 can .*: use f32|not finite)'):
      list(gguf_file._quantised(tensor, gguf.GGMLQuantizationType[kind], 'wo'))


def test_refusals_leave_nothing(hf_folder, tmp_path):
  with pytest.raises(ValueError, match='must be one of'):
    gguf_file.to_gguf(hf_folder(), tmp_path / 'out', quantisation='int8')
  incomplete = tmp_path / 'incomplete'
  incomplete.mkdir()
  for path in hf_folder().iterdir():
    if path.name not in ('spiece.model', 'tokenizer.json'):
      (incomplete / path.name).write_bytes(path.read_bytes())
  with pytest.raises(FileNotFoundError, match='no SentencePiece file'):
    gguf_file.to_gguf(incomplete, tmp_path / 'out')
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'file').write_text('mine')
  with pytest.raises(FileExistsError, match='--overwrite'):
    gguf_file.to_gguf(hf_folder(), tmp_path / 'full')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['full', 'incomplete']


@pytest.mark.parametrize('tied', [False, True], ids=['untied', 'tied'])
def test_llama_cpp_answers_as_transformers_does(hf_folder, converted, tied):
  """Runs llama.cpp itself, which few machines have; CI reads the file back instead."""
  pytest.importorskip('llama_cpp', reason='llama-cpp-python is not installed')
  torch = pytest.importorskip('torch', reason='needs the extra `hf`')
  transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')
  from tests.export import llama

  overrides = {'logits_via_embedding': True} if tied else {}
  hf = hf_folder(**overrides)
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(hf))
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(hf))
  running = llama.Model(converted(**overrides).path)
  for text in hf_torch.PROMPTS:
    ids = tokenizer(text)['input_ids']
    tokens, logits = running.greedy(ids, 8)
    decoder = torch.tensor([[0, *tokens[:-1]]])
    with torch.no_grad():
      expected = model(input_ids=torch.tensor([ids]), decoder_input_ids=decoder).logits[0].numpy()
    # llama.cpp keeps the keys and values of attention in float16.
    np.testing.assert_allclose(logits, expected, atol=0.02, rtol=0.02)


def test_llama_cpp_tokenises_as_sentencepiece_does(converted, vocabulary_file):
  pytest.importorskip('llama_cpp', reason='llama-cpp-python is not installed')
  import sentencepiece

  from tests.export import llama

  running = llama.Model(converted().path)
  pieces = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary_file))
  spelled = 0
  for text in (*small_model.CORPUS, '  two   spaces '):
    ids = pieces.encode(text)
    if any(pieces.is_byte(i) for i in ids):  # llama.cpp has no byte fallback
      spelled += 1
      assert 2 in running.tokenize(text)
    else:
      assert running.tokenize(text) == [*ids, 1], text
  assert 0 < spelled < len(small_model.CORPUS)
