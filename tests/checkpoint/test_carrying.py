"""What a Hugging Face folder says beside its arrays is carried in every direction, or refused."""

import json
import shutil

import numpy as np
import pytest

from aya_train.checkpoint import convert, formats, sha256sums
from aya_train.checkpoint.arrays import lazy_arrays
from tests.checkpoint.hf import transformers_folder

torch = pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')
pytest.importorskip('sentencepiece')


@pytest.fixture(scope='module')
def plain_vocabulary(vocabulary_file):
  """The vocabulary without sentinels, as T5's is."""
  return vocabulary_file.parent / 'plain.model'


@pytest.fixture
def folder(tmp_path, vocabulary_file):
  def make(kind='MT5', **settings):
    return transformers_folder.write(
      tmp_path / 'source', kind=kind, vocabulary=vocabulary_file, **settings
    )

  return make


def opened(path):
  return formats.open_checkpoint(formats.detect(path))


def answers(path, prompts, **options):
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(path), dtype=torch.float32).eval()
  return [model.generate(torch.tensor([ids]), **options)[0].tolist() for ids in prompts]


PROMPTS = [[300, 301, 17, 1], [411, 305, 1]]
SAID = {
  'decoder_start_token_id': 5,
  'eos_token_id': [1, 7],
  'num_beams': 2,
  'repetition_penalty': 1.5,
  'max_new_tokens': 9,
}


@pytest.mark.parametrize('through', ['hf', 'native'])
def test_start_end_and_generation_settings_survive(folder, tmp_path, through):
  source = transformers_folder.change(folder(), 'generation_config.json', **SAID)
  transformers_folder.change(source, dropout_rate=0.25, task_specific_params={'x': {'prefix': 'y'}})
  first = convert.convert(
    source,
    tmp_path / 'first',
    to=through,
    dtype='bfloat16' if through == 'hf' else None,
  )
  back = convert.convert(
    first, tmp_path / 'back', to='hf', dtype='float32', verify=through == 'native'
  )
  generation = json.loads((back / 'generation_config.json').read_text())
  assert {key: generation[key] for key in SAID} == SAID
  config = json.loads((back / 'config.json').read_text())
  assert config['dropout_rate'] == 0.25 and config['task_specific_params'] == {'x': {'prefix': 'y'}}
  assert opened(back).settings == opened(source).settings
  if through == 'native':
    assert answers(back, PROMPTS) == answers(source, PROMPTS)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'decoder_start_token_id': 5}, r'decoder_start_token_id 5 \(not 0\)'),
    ({'eos_token_id': 7}, r'eos_token_id 7 \(not 1\)'),
  ],
)
def test_t5x_refuses_a_start_and_an_end_that_it_cannot_say(folder, tmp_path, changes, message):
  source = transformers_folder.change(folder(), **changes)
  transformers_folder.change(source, 'generation_config.json', **changes)
  with pytest.raises(ValueError, match=message):
    convert.convert(source, tmp_path / 'out', to='t5x')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'name', ['relative_attention_max_distance', 'relative_attention_num_buckets']
)
def test_t5x_refuses_relative_positions_that_its_networks_do_not_have(folder, tmp_path, name):
  source = folder(**{name: 40})
  with pytest.raises(ValueError, match=f'{name} 40; T5X'):
    convert.convert(source, tmp_path / 'out', to='t5x')
  convert.convert(source, tmp_path / 'native', to='native')
  assert getattr(opened(tmp_path / 'native').config, name) == 40


def test_a_gated_silu_network_comes_back_from_t5x(folder, tmp_path):
  source = folder(feed_forward_proj='gated-silu', dropout_rate=0.0)
  t5x = convert.convert(source, tmp_path / 'checkpoint_0', to='t5x')
  assert "network.T5Config.mlp_activations = ('silu', 'linear')" in (t5x / 'model.gin').read_text()
  config = opened(t5x).config
  assert (config.mlp_activations, config.dropout_rate) == (('silu', 'linear'), 0.0)
  back = convert.convert(t5x, tmp_path / 'back', to='hf')
  assert json.loads((back / 'config.json').read_text())['feed_forward_proj'] == 'gated-silu'


# As T5X writes it into the folder of a run.
CONFIG_GIN = """from __gin__ import dynamic_registration
from t5x.examples.t5 import network

ACTIVATIONS = ('swish', 'linear')
DROPOUT_RATE = 0.25

network.T5Config.dropout_rate = %DROPOUT_RATE
network.T5Config.dtype = 'bfloat16'
network.T5Config.mlp_activations = \\
    {}
network.T5Config.vocab_size = @seqio.vocab_size()
"""


@pytest.mark.parametrize('written', ["('silu', 'linear')", '%ACTIVATIONS'])
def test_the_config_gin_of_t5x_says_what_no_array_does(
  folder, tmp_path, written, caplog, vocabulary_file
):
  t5x = convert.convert(
    folder(feed_forward_proj='gated-silu'), tmp_path / 'run/checkpoint_0', to='t5x'
  )
  for name in ('model.json', 'model.gin'):
    (t5x / name).unlink()
  assert opened(t5x).config.mlp_activations == ('gelu', 'linear')
  (t5x.parent / 'config.gin').write_text(CONFIG_GIN.format(written))
  config = opened(t5x).config
  assert (config.mlp_activations, config.dropout_rate) == (('silu', 'linear'), 0.25)
  caplog.clear()
  back = convert.convert(t5x, tmp_path / 'back', to='hf', vocabulary_file=str(vocabulary_file))
  assert json.loads((back / 'config.json').read_text())['feed_forward_proj'] == 'gated-silu'
  assert 'does not say what its MLP computes' not in caplog.text


@pytest.mark.parametrize(
  ('written', 'message'),
  [("('tanh', 'linear')", r"config\.gin: .*'tanh'"), ("('relu',)", 'of another model')],
)
def test_a_config_gin_that_does_not_fit_is_refused(folder, tmp_path, written, message):
  t5x = convert.convert(folder(), tmp_path / 'run/checkpoint_0', to='t5x')
  (t5x / 'model.json').unlink()
  (t5x.parent / 'config.gin').write_text(CONFIG_GIN.format(written))
  with pytest.raises(ValueError, match=message):
    opened(t5x)


def test_a_config_gin_of_another_model_is_not_read(folder, tmp_path, caplog):
  t5x = convert.convert(folder(), tmp_path / 'run/checkpoint_0', to='t5x')
  (t5x / 'model.json').unlink()
  other = CONFIG_GIN.format('%ACTIVATIONS') + 'network.T5Config.emb_dim = 17\n'
  (t5x.parent / 'config.gin').write_text(other)
  assert opened(t5x).config.mlp_activations == ('gelu', 'linear')
  assert 'emb_dim 17' in caplog.text


@pytest.mark.parametrize('damage', ['{', '{"architecture": {"emb_dim": 17}}'])
def test_a_model_json_that_does_not_fit_is_refused(folder, tmp_path, damage):
  t5x = convert.convert(folder(), tmp_path / 'checkpoint_0', to='t5x')
  (t5x / 'model.json').write_text(damage)
  with pytest.raises(ValueError, match=r'model\.json'):
    opened(t5x)


def test_a_model_json_of_another_network_is_refused(folder, tmp_path):
  t5x = convert.convert(folder(), tmp_path / 'checkpoint_0', to='t5x')
  content = json.loads((t5x / 'model.json').read_text())
  content['architecture']['emb_dim'] = 17
  (t5x / 'model.json').write_text(json.dumps(content))
  (t5x / sha256sums.NAME).unlink()  # as its message tells who has changed the file
  with pytest.raises(ValueError, match='another network than the arrays'):
    opened(t5x)


# Tokenizers ---------------------------------------------------------------------------------------

TOKENS = ('<sep>', '<|user|>', 'waziri')
TEXTS = ('Mo <sep> na.', '<extra_id_0> maji <extra_id_99>', 'x<|user|>y waziri mkuu')


@pytest.mark.parametrize('own_file', [True, False], ids=['spiece', 'tokenizer.json'])
@pytest.mark.parametrize('through', ['native', 't5x'])
def test_added_tokens_and_sentinels_are_carried(
  tmp_path, plain_vocabulary, vocabulary_file, through, own_file
):
  source = transformers_folder.write(tmp_path / 'source')
  transformers_folder.with_tokens(source, plain_vocabulary, *TOKENS, own_file=own_file)
  expected = transformers.AutoTokenizer.from_pretrained(str(source))
  verify = own_file and through == 't5x'
  through = convert.convert(source, tmp_path / 'checkpoint_0', to=through)
  (tmp_path / 'moved').mkdir()  # copied elsewhere, it is still whole
  through = through.rename(tmp_path / 'moved' / 'checkpoint_0')
  import sentencepiece

  pieces = sentencepiece.SentencePieceProcessor(model_file=opened(through).vocabulary_file)
  for token in (*TOKENS, '<extra_id_0>', '<extra_id_99>'):
    assert pieces.piece_to_id(token) == expected.convert_tokens_to_ids(token)
  plain = 'Mwanaume alifungua maji.'
  assert [*pieces.encode(plain), 1] == expected(plain)['input_ids']
  back = convert.convert(through, tmp_path / 'back', to='hf', verify=verify)
  found = transformers.AutoTokenizer.from_pretrained(str(back))
  for text in (*TEXTS, plain):
    assert found(text)['input_ids'] == expected(text)['input_ids']


def test_a_token_without_a_row_is_refused(tmp_path, plain_vocabulary):
  source = transformers_folder.write(tmp_path / 'source', vocab_size=546)
  transformers_folder.with_tokens(source, plain_vocabulary, '<sep>')
  for to in ('native', 'hf'):
    with pytest.raises(
      ValueError, match=r"'<sep>' the id 546, and the table of embeddings has 546"
    ):
      convert.convert(source, tmp_path / 'out', to=to, dtype='bfloat16')


def test_another_vocabulary_than_the_folders_is_refused(tmp_path, plain_vocabulary, folder):
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(plain_vocabulary.read_bytes())
  normal = [piece for piece in model.pieces if piece.type == 1]
  for piece, other in zip(normal, [piece.piece for piece in reversed(normal)], strict=True):
    piece.piece = other
  (tmp_path / 'other.model').write_bytes(model.SerializeToString())
  with pytest.raises(ValueError, match='is not the vocabulary of the tokenizer'):
    convert.convert(
      folder(), tmp_path / 'out', to='native', vocabulary_file=str(tmp_path / 'other.model')
    )


def test_byt5_is_carried_to_hugging_face_and_refused_elsewhere(tmp_path):
  source = transformers_folder.write(
    tmp_path / 'byt5', kind='T5', vocab_size=384, tie_word_embeddings=False
  )
  transformers.ByT5Tokenizer().save_pretrained(source)
  for to in ('native', 't5x'):
    with pytest.raises(ValueError, match='ByT5Tokenizer'):
      convert.convert(source, tmp_path / 'out', to=to)
  out = convert.convert(source, tmp_path / 'out', dtype='bfloat16')
  text = 'Mo ṣe àlàyé.'
  expected = transformers.ByT5Tokenizer()(text)['input_ids']
  assert transformers.AutoTokenizer.from_pretrained(str(out))(text)['input_ids'] == expected


# Tables and numbers -------------------------------------------------------------------------------


def rewrite(folder, change):
  """Changes the tensors of a folder; tables are written under all names that `change` leaves."""
  import safetensors.torch

  path = folder / 'model.safetensors'
  tensors = {name: x.clone() for name, x in safetensors.torch.load_file(path).items()}
  change(tensors)
  safetensors.torch.save_file(tensors, path, metadata={'format': 'pt'})
  return folder


@pytest.mark.parametrize('table', ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'])
def test_a_second_table_that_differs_is_refused(folder, table, tmp_path):
  def add(tensors):
    tensors[table] = tensors['shared.weight'] + 1

  with pytest.raises(ValueError, match=f'{table} differ'):
    convert.convert(rewrite(folder(), add), tmp_path / 'out', to='native')


def test_a_table_under_another_name_is_taken(folder, tmp_path):
  def rename(tensors):
    tensors['encoder.embed_tokens.weight'] = tensors.pop('shared.weight')

  out = convert.convert(rewrite(folder(), rename), tmp_path / 'out', to='native')
  assert opened(out).config.vocab_size == 640


@pytest.mark.parametrize(
  ('kind', 'changes'),
  [('T5', {}), ('T5', {'scale_decoder_outputs': False}), ('MT5', {}), ('UMT5', {})],
)
def test_the_scale_of_a_tied_model_is_kept(tmp_path, vocabulary_file, kind, changes):
  source = transformers_folder.write(
    tmp_path / 'source', kind=kind, tied=True, vocabulary=vocabulary_file
  )
  transformers_folder.change(source, **changes)
  hf = convert.convert(source, tmp_path / 'hf', to='hf', dtype='bfloat16')
  assert 'spiece.model' in {path.name for path in hf.iterdir()}
  assert transformers.AutoTokenizer.from_pretrained(str(hf))('maji')['input_ids'][-1] == 1
  native = convert.convert(source, tmp_path / 'native', to='native')
  back = convert.convert(native, tmp_path / 'back', to='hf')
  ids = torch.tensor([[300, 301, 1]])
  logits = [
    transformers.AutoModelForSeq2SeqLM.from_pretrained(str(path))
    .eval()(input_ids=ids, decoder_input_ids=ids)
    .logits.detach()
    .numpy()
    for path in (source, back)
  ]
  np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('to', ['native', 't5x', 'hf'])
def test_weights_that_are_not_finite_are_refused_by_name(folder, tmp_path, value, to):
  def spoil(tensors):
    tensors['decoder.block.0.layer.2.DenseReluDense.wo.weight'][3, 5] = value

  source = rewrite(folder(), spoil)
  options = {'to': to, 'dtype': 'bfloat16'}
  with pytest.raises(ValueError, match=rf'(mlp/wo/kernel|DenseReluDense\.wo.*) holds {value}'):
    convert.convert(source, tmp_path / 'out', **options)
  assert not (tmp_path / 'out').exists()
  convert.convert(source, tmp_path / 'out', allow_non_finite=True, **options)


def test_a_number_that_bfloat16_does_not_hold_is_refused(folder, tmp_path):
  def spoil(tensors):
    tensors['lm_head.weight'][3, 5] = 3.4e38

  source = rewrite(folder(), spoil)
  for to in ('native', 't5x', 'hf'):
    with pytest.raises(ValueError, match=r'holds 3\.4e\+38, more than bfloat16 can'):
      convert.convert(source, tmp_path / 'out', to=to, dtype='bfloat16')


def test_a_cast_says_what_becomes_infinite():
  cast = lazy_arrays.cast(lazy_arrays.of(np.array([1.0, 1e5], np.float32)), np.float16, 'x/kernel')
  with pytest.raises(ValueError, match='x/kernel holds 100000, more than float16'):
    cast.read()


# Answers ------------------------------------------------------------------------------------------


def test_verify_sees_answers_that_begin_elsewhere(folder, tmp_path, monkeypatch):
  """The folder forgets the start token, as every export once did."""
  from aya_train.checkpoint import carrying
  from aya_train.checkpoint.hf import hf_config

  source = transformers_folder.change(folder(), decoder_start_token_id=5)
  transformers_folder.change(source, 'generation_config.json', decoder_start_token_id=5)
  forget = {'pad_token_id': 0, 'eos_token_id': 1, 'decoder_start_token_id': 0}
  monkeypatch.setattr(hf_config, '_ids', lambda settings: forget)
  with pytest.raises(ValueError, match=r'decoder_start_id 0, expected 5'):
    convert.convert(source, tmp_path / 'out', dtype='bfloat16', verify=True)
  monkeypatch.setattr(carrying, 'check_carried', lambda *_: None)
  with pytest.raises(ValueError, match=r'differ|answers begin with token 0'):
    convert.convert(source, tmp_path / 'out', dtype='bfloat16', verify=True)


@pytest.mark.parametrize('layers', [(1, 3), (3, 1)], ids=['deeper', 'shallower'])
def test_transformers_answers_with_an_export_of_any_depth(folder, tmp_path, layers):
  source = folder(num_layers=layers[0], num_decoder_layers=layers[1])
  native = convert.convert(source, tmp_path / 'native', to='native', max_new_tokens=4)
  out = convert.convert(native, tmp_path / 'out', to='hf', verify=layers[0] == 1)
  (found,) = answers(out, PROMPTS[:1])
  assert len(found) <= 1 + 4 and found[0] == 0


def test_exports_say_how_long_answers_are(folder, tmp_path, caplog):
  caplog.set_level('INFO', logger='aya_train')
  native = convert.convert(folder(), tmp_path / 'native', to='native')
  path = native / 'metadata' / 'metadata'
  metadata = json.loads(path.read_text())

  def length(name, **options):
    out = convert.convert(native, tmp_path / name, to='hf', **options)
    return json.loads((out / 'generation_config.json').read_text())['max_new_tokens']

  assert length('default') == 1024 and 'max_new_tokens 1024' in caplog.text
  path.write_text(json.dumps({**metadata, 'task_feature_lengths': {'inputs': 64, 'targets': 48}}))
  shutil.rmtree(native / 'digests')  # so that the folder may be changed
  assert length('run') == 48
  assert length('asked', max_new_tokens=77) == 77
  with pytest.raises(ValueError, match='--max_new_tokens must be at least 1'):
    length('none', max_new_tokens=0)
