"""Sentence encoders for CTranslate2 and llama.cpp: near the vectors they stand for."""

import json

import numpy as np
import pytest

from aya_train import ct2_library, partitioning
from aya_train.cli import main
from aya_train.embedding import ct2_vectors, encoder_checkpoint, text_encoder
from aya_train.export import gguf_file, quantised, quantised_encoder, sentence_folder
from tests.embedding import embedding_runs

pytest.importorskip('ctranslate2', reason='needs the extra `quantised`')
pytest.importorskip('gguf', reason='needs the extra `quantised`')
pytest.importorskip('transformers', reason='needs the extra `hf`')

TEXTS = embedding_runs.TEXTS
KINDS = {
  'mt5': {},
  'umt5': {'relpos_bias_per_layer': True},
  't5': {'logits_via_embedding': True, 'mlp_activations': ('relu',)},
}


@pytest.fixture(scope='module')
def run(tmp_path_factory, vocabulary_file):
  """A MODEL_DIR of a width that GGUF's blocks of 32 divide."""
  folder = tmp_path_factory.mktemp('wide_run')
  shape = {'emb_dim': 32, 'mlp_dim': 64, 'head_dim': 16, 'scan_layers': True}
  embedding_runs.write_run(folder, vocabulary_file, network=embedding_runs.config(**shape))
  return folder


@pytest.fixture(scope='module')
def made(run, tmp_path_factory):
  """(to, quantisation) -> folder and report."""
  found = {}

  def convert(to, quantisation):
    if (to, quantisation) not in found:
      out = tmp_path_factory.mktemp('quantised') / 'model'
      quantised.quantise(run, out, to=to, quantisation=quantisation)
      found[to, quantisation] = out, json.loads((out / 'quantised.json').read_text())
    return found[to, quantisation]

  return convert


def vectors(checkpoint, texts=TEXTS):
  return text_encoder.TextEncoder(checkpoint, partitioning.one_device()).vectors(texts)


@pytest.mark.parametrize(
  ('to', 'quantisation', 'least'),
  [
    ('ct2', 'float32', 1 - 1e-6),
    ('ct2', 'int8_float32', 0.99),
    ('gguf', 'f32', 1 - 1e-6),
    pytest.param('gguf', 'q8_0', 0.99, marks=pytest.mark.heavy),
  ],
)
def test_the_report_says_how_near_the_vectors_are(made, to, quantisation, least):
  folder, report = made(to, quantisation)
  assert report['examples'] == len(quantised_encoder.SAMPLES)
  assert least <= report['smallest_cosine'] <= report['cosine'] <= 1 + 1e-6
  assert (report['score_difference'] < 1e-5) == (least > 0.9999)
  settings = json.loads((folder / 'embedding.json').read_text())
  assert settings['prompts'] == {'query': 'query: ', 'passage': 'passage: '}
  assert (settings['dimension'], settings['max_length']) == (12, 64)
  assert f'{report["cosine"]:.5f}' in (folder / 'README.md').read_text()


def test_commands_use_a_folder_of_ctranslate2(run, made, tmp_path):
  folder, _ = made('ct2', 'float32')
  ours = encoder_checkpoint.open_checkpoint(run)
  found = ct2_vectors.Ct2TextEncoder(folder)
  np.testing.assert_allclose(found.vectors(TEXTS), vectors(ours), atol=1e-5)
  corpus = tmp_path / 'corpus.txt'
  corpus.write_text('\n'.join(TEXTS))
  out = tmp_path / 'vectors'
  arguments = ['embed', str(folder), str(corpus), '--output', str(out), '--dimension', '4']
  main.main([*arguments, '--prompt_name', 'query'])
  written = np.load(next(out.glob('*.npy')))
  assert written.shape == (len(TEXTS), 4)
  about = json.loads((out / 'embeddings.json').read_text())['about']
  assert (about['prompt'], about['activations']) == ('query: ', 'float32')


def test_the_card_says_how_vectors_are_made(made, monkeypatch):
  folder, _ = made('ct2', 'float32')
  monkeypatch.chdir(folder.parent)
  code = (folder / 'README.md').read_text().split('```python')[1].split('```')[0]
  names = {}
  exec(code, names)
  texts = ['Where is Lagos?', 'Lagos is in Nigeria.']
  expected = ct2_vectors.Ct2TextEncoder(folder).vectors(texts)
  np.testing.assert_allclose(names['vectors'], expected, atol=1e-5)


@pytest.mark.heavy
def test_a_gguf_file_says_what_it_is(made):
  folder, _ = made('gguf', 'f32')
  fields = {k: f.contents() for k, f in gguf_file.read(folder).reader.fields.items()}
  assert fields['general.architecture'] == 't5encoder'
  assert (fields['t5encoder.pooling_type'], fields['t5encoder.context_length']) == (1, 64)
  assert not any('decoder' in key for key in fields)


def test_weights_that_mean_nothing_any_more_are_refused(run, tmp_path, monkeypatch):
  monkeypatch.setattr(quantised_encoder, 'LEAST_COSINE', 0.99999)
  with pytest.raises(
    ValueError, match=r'int8_float32 vectors of .* have a cosine of 0\..*less than 0\.99999'
  ):
    quantised.quantise(run, tmp_path / 'out', to='ct2', quantisation='int8_float32')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['float16', 'int8_float16'])
def test_float16_is_refused(run, tmp_path, name):
  with pytest.raises(ValueError, match='of an encoder for ct2 must be one of'):
    quantised.quantise(run, tmp_path / 'out', to='ct2', quantisation=name)


def test_nothing_is_made_of_a_folder_of_ctranslate2(made, tmp_path):
  folder, _ = made('ct2', 'float32')
  for convert in (
    lambda: sentence_folder.export(folder, tmp_path / 'x'),
    lambda: quantised.quantise(folder, tmp_path / 'x', to='gguf'),
  ):
    with pytest.raises(ValueError, match='weights are quantised'):
      convert()


def test_damaged_settings_are_named(made, tmp_path):
  folder, _ = made('ct2', 'float32')
  (tmp_path / 'model.bin').write_bytes(b'')
  for content in ('{', '{}', '[]', (folder / 'embedding.json').read_text().replace('12', '13')):
    (tmp_path / ct2_library.ENCODER).write_text(content)
    for path in folder.glob('projection*'):
      (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match='Convert the checkpoint again'):
      ct2_vectors.open_folder(tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_encoders_of_each_family(kind, to, tmp_path, vocabulary_file):
  changes = {'emb_dim': 32, 'mlp_dim': 64, 'num_encoder_layers': 3, **KINDS[kind]}
  whole = embedding_runs.write_hf(tmp_path / 'whole', vocabulary_file, **changes)
  sentences = sentence_folder.export(whole, tmp_path / 'st')
  for quantisation, least in zip(
    {'ct2': ('float32', 'int8_float32'), 'gguf': ('f32', 'q8_0')}[to], (1 - 1e-5, 0.99), strict=True
  ):
    out = tmp_path / quantisation
    quantised.quantise(sentences, out, to=to, quantisation=quantisation)
    assert json.loads((out / 'quantised.json').read_text())['smallest_cosine'] > least


@pytest.mark.heavy
@pytest.mark.parametrize('quantisation', ['f32', 'q8_0'])
@pytest.mark.parametrize('kind', KINDS)
def test_llama_cpp_gives_the_same_vectors(kind, quantisation, tmp_path, vocabulary_file):
  """Runs llama.cpp itself, which few machines have."""
  pytest.importorskip('llama_cpp', reason='llama-cpp-python is not installed')
  from tests.export import llama

  changes = {'emb_dim': 32, 'mlp_dim': 64, 'num_encoder_layers': 3, **KINDS[kind]}
  whole = embedding_runs.write_hf(tmp_path / 'whole', vocabulary_file, **changes)
  sentences = sentence_folder.export(whole, tmp_path / 'st')
  out = tmp_path / 'out'
  quantised.quantise(sentences, out, to='gguf', quantisation=quantisation)
  checkpoint = encoder_checkpoint.open_checkpoint(sentences)
  tokens = text_encoder.Tokens(checkpoint.vocabulary_model(), 256)
  running = llama.Embedder(gguf_file.read(out).path)
  theirs = np.stack([running.vector(ids) for ids in tokens.of(TEXTS)])
  theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
  cosines = np.einsum('td,td->t', theirs, vectors(checkpoint))
  assert cosines.min() > (0.9999 if quantisation == 'f32' else 0.99), cosines
