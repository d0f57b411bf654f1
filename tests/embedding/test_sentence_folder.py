"""Folders of sentence-transformers: read back bit for bit, the same vectors there."""

import json

import numpy as np
import pytest

from aya_train import partitioning
from aya_train.checkpoint import sha256sums
from aya_train.checkpoint.arrays import safetensors_file
from aya_train.cli import main
from aya_train.embedding import encoder_checkpoint, text_encoder
from aya_train.export import sentence_folder
from tests.embedding import embedding_runs

TEXTS = embedding_runs.TEXTS


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported') / 'model'
  sentence_folder.export(run[0], folder, license='mit')
  return folder


def test_a_folder_is_read_back(exported, run, encoder):
  found = encoder_checkpoint.open_checkpoint(exported)
  assert found.prompts == {'query': 'query: ', 'passage': 'passage: '}
  assert (found.dimension, found.matryoshka_dimensions, found.max_length) == (12, (4,), 64)
  ours = text_encoder.TextEncoder(found, partitioning.one_device())
  np.testing.assert_allclose(ours.vectors(TEXTS), encoder.vectors(TEXTS), atol=2e-6)
  again = exported.parent / 'again'
  sentence_folder.export(exported, again, license='mit')
  for path in sorted(exported.rglob('*')):
    if path.is_file() and path.name != 'README.md':
      assert (again / path.relative_to(exported)).read_bytes() == path.read_bytes(), path


def test_its_modules_are_stock_ones(exported):
  modules = json.loads((exported / 'modules.json').read_text())
  assert [(m['path'], m['type'].rpartition('.')[2]) for m in modules] == [
    ('', 'Transformer'),
    ('1_Pooling', 'Pooling'),
    ('2_Dense', 'Dense'),
    ('3_Normalize', 'Normalize'),
  ]
  card = (exported / 'README.md').read_text()
  assert 'library_name: sentence-transformers' in card and 'query: ' in card
  assert 'was not trained for embeddings' not in card


def test_the_table_of_umt5_has_both_names(tmp_path, vocabulary_file):
  folder = embedding_runs.write_hf(tmp_path / 'umt5', vocabulary_file, relpos_bias_per_layer=True)
  out = sentence_folder.export(folder, tmp_path / 'out')
  tensors = safetensors_file.open_file(out / 'model.safetensors')
  table = tensors['shared.weight'].read()
  np.testing.assert_array_equal(tensors['encoder.embed_tokens.weight'].read(), table)
  assert json.loads((out / 'config.json').read_text())['architectures'] == ['UMT5EncoderModel']
  assert 'was not trained for embeddings' in (out / 'README.md').read_text()


@pytest.mark.parametrize(
  ('file', 'change', 'message'),
  [
    ('1_Pooling/config.json', {'pooling_mode_cls_token': True}, "pooling \\['cls', 'mean'\\]"),
    ('1_Pooling/config.json', {'include_prompt': False}, 'without the prompt'),
    ('2_Dense/config.json', {'activation_function': 'torch.nn.Tanh'}, "activation 'Tanh'"),
  ],
)
def test_what_computes_something_else_is_refused(exported, tmp_path, file, change, message):
  folder = tmp_path / 'other'
  for path in exported.rglob('*'):
    if path.is_file():
      target = folder / path.relative_to(exported)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  content = json.loads((folder / file).read_text())
  (folder / file).write_text(json.dumps({**content, **change}))
  with pytest.raises(ValueError, match=message):
    encoder_checkpoint.open_checkpoint(folder)


def copied(folder, to):
  for path in folder.rglob('*'):
    if path.is_file():
      target = to / path.relative_to(folder)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  return to


READ = ('modules.json', 'config.json', 'model.safetensors', '1_Pooling/config.json')
READ += ('2_Dense/config.json', '2_Dense/model.safetensors', 'config_sentence_transformers.json')
READ += ('sentence_bert_config.json', 'spiece.model')


@pytest.mark.parametrize('file', READ)
@pytest.mark.parametrize('damage', ['empty', 'cut', 'other'])
def test_a_damaged_file_is_named(exported, tmp_path, file, damage):
  folder = copied(exported, tmp_path / 'other')
  content = (folder / file).read_bytes()
  changed = {'empty': b'', 'cut': content[: len(content) // 2], 'other': b'[[3]]'}[damage]
  (folder / file).write_bytes(changed)
  with pytest.raises((ValueError, FileNotFoundError), match=str(folder)):
    text_encoder.TextEncoder(
      encoder_checkpoint.open_checkpoint(folder), partitioning.one_device()
    ).vectors(TEXTS[:1])


@pytest.mark.parametrize('file', READ[:2] + READ[3:5])
def test_a_missing_file_is_named(exported, tmp_path, file):
  folder = copied(exported, tmp_path / 'other')
  (folder / file).unlink()
  with pytest.raises((ValueError, FileNotFoundError), match=str(folder)):
    encoder_checkpoint.open_checkpoint(folder)


@pytest.mark.parametrize('file', ['model.safetensors', '2_Dense/model.safetensors'])
def test_numbers_that_are_none_are_refused(exported, tmp_path, file):
  folder = copied(exported, tmp_path / 'other')
  content = (folder / file).read_bytes()
  (folder / file).write_bytes(content[:-4] + np.float32('nan').tobytes())
  (folder / sha256sums.NAME).unlink()
  with pytest.raises(ValueError, match=r'not finite|NaN|nan'):
    text_encoder.TextEncoder(
      encoder_checkpoint.open_checkpoint(folder), partitioning.one_device()
    ).vectors(TEXTS[:1])


def test_float16_is_refused(run, tmp_path):
  with pytest.raises(ValueError, match='overflow in float16'):
    sentence_folder.export(run[0], tmp_path / 'x', dtype='float16')


@pytest.mark.heavy
@pytest.mark.parametrize('kind', ['run', 'mt5', 'umt5', 't5', 'narrow'])
def test_sentence_transformers_gives_the_same_vectors(kind, run, tmp_path, vocabulary_file):
  library = pytest.importorskip(
    'sentence_transformers', reason='the extra `embed` is not installed'
  )
  changes = {'umt5': {'relpos_bias_per_layer': True}, 't5': {'logits_via_embedding': True}}
  source = run[0]
  if kind not in ('run', 'narrow'):
    source = embedding_runs.write_hf(tmp_path / kind, vocabulary_file, **changes.get(kind, {}))
  out = sentence_folder.export(source, tmp_path / 'out', verify=True)
  checkpoint = encoder_checkpoint.open_checkpoint(out)
  assert sentence_folder.compare(out, checkpoint, str(out), texts=TEXTS) < 1e-5
  if kind == 'narrow':  # Matryoshka there
    model = library.SentenceTransformer(str(out), truncate_dim=4, device='cpu')
    theirs = model.encode(list(TEXTS), normalize_embeddings=True, prompt_name='query')
    settings = text_encoder.Settings(dimension=4)
    ours = text_encoder.TextEncoder(checkpoint, partitioning.one_device(), settings)
    np.testing.assert_allclose(
      ours.vectors([f'query: {text}' for text in TEXTS]), theirs, atol=1e-4
    )


@pytest.mark.heavy
def test_other_vectors_are_noticed(run, exported):
  pytest.importorskip('sentence_transformers', reason='the extra `embed` is not installed')
  checkpoint = encoder_checkpoint.open_checkpoint(run[0])
  with pytest.raises(ValueError, match=r'differ by .* from ours, more than 0\.0001'):
    sentence_folder.compare(exported, checkpoint, 'x', texts=TEXTS, max_length=4)


@pytest.mark.parametrize('to', ['sentence-transformers', 'ct2', 'gguf'])
def test_a_base_is_for_adapters_alone(run, tmp_path, capsys, to):
  """It was left out in silence."""
  words = ['convert', str(run[0]), str(tmp_path / 'out'), '--to', to, '--base', str(tmp_path)]
  assert main.main(words) == 1
  assert 'is no adapter, but whole weights' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
