"""Vectors are those of the network, and of a text alone: not of its batch, order or devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import partitioning
from aya_train.checkpoint import formats
from aya_train.embedding import encoder_checkpoint, text_encoder
from aya_train.models import sentence_encoder
from tests.embedding import embedding_runs

TEXTS = embedding_runs.TEXTS
HEAVY = pytest.mark.heavy


def encoder_of(path, partitioner=None, **settings):
  return text_encoder.TextEncoder(
    encoder_checkpoint.open_checkpoint(path),
    partitioner or partitioning.one_device(),
    text_encoder.Settings(**settings),
  )


def test_a_run_gives_the_vectors_of_its_model(run, encoder):
  _, model, params = run
  found = encoder.vectors(TEXTS)
  assert found.shape == (len(TEXTS), embedding_runs.PROJECTION)
  assert encoder.max_length == 64
  import sentencepiece

  pieces = sentencepiece.SentencePieceProcessor(model.vocabulary.sentencepiece_model_file)
  tokens = np.zeros((len(TEXTS), 64), np.int32)
  for row, ids in zip(tokens, pieces.encode(list(TEXTS)), strict=True):
    ids = [*ids[:63], 1]
    row[: len(ids)] = ids
  np.testing.assert_allclose(jax.jit(model.encoder.embed)(params, tokens), found, atol=2e-5)


def test_a_vector_depends_on_its_text_alone(run, encoder):
  found = encoder.vectors(TEXTS)
  np.testing.assert_array_equal(encoder.vectors(TEXTS[::-1])[::-1], found)
  np.testing.assert_array_equal(np.concatenate([encoder.vectors([t]) for t in TEXTS]), found)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize('sharded', [pytest.param(False, marks=HEAVY), True])
def test_devices_change_nothing(run, encoder, sharded):
  assert jax.device_count() == 8
  mesh = text_encoder.partitioner(2, shard_weights=sharded)
  found = encoder_of(run[0], mesh, batch_size=4).vectors(TEXTS)
  np.testing.assert_allclose(found, encoder.vectors(TEXTS), atol=2e-5)


def test_the_first_numbers_are_a_vector_again(run, encoder, caplog):
  whole = encoder.vectors(TEXTS)
  found = encoder_of(run[0], dimension=4).vectors(TEXTS)
  assert not caplog.records
  np.testing.assert_allclose(
    found, whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1)[:, None], atol=1e-5
  )
  encoder_of(run[0], dimension=5)
  assert 'was trained for vectors of 4, 12 dimensions, not of 5' in caplog.text


@pytest.mark.parametrize(
  'kind', [pytest.param('mt5', marks=HEAVY), 'umt5', pytest.param('t5', marks=HEAVY)]
)
def test_the_encoder_of_a_whole_model_with_mean_pooling(kind, tmp_path, vocabulary_file):
  changes = {
    'mt5': {},
    'umt5': {'relpos_bias_per_layer': True},
    't5': {'logits_via_embedding': True, 'mlp_activations': ('relu',)},
  }[kind]
  folder = embedding_runs.write_hf(tmp_path / kind, vocabulary_file, **changes)
  checkpoint = formats.open_checkpoint(formats.detect(folder))
  params = {name: array.read() for name, array in checkpoint.params.items()}
  tokens = jnp.array([[5, 9, 300, 1, 0, 0]])
  from flax import traverse_util

  wanted = jax.jit(sentence_encoder.SentenceEncoder(checkpoint.config).embed)(
    traverse_util.unflatten_dict(params, sep='/'), tokens
  )
  ours = encoder_of(folder)
  ours._tokens.of = lambda texts: [[5, 9, 300, 1]]
  np.testing.assert_allclose(ours.vectors(['x']), wanted, atol=1e-5)
  assert ours.dimension == embedding_runs.WIDTH and not ours.checkpoint.prompts


def test_prompts_are_those_of_the_checkpoint(encoder):
  assert encoder.prompt('query') == 'query: '
  assert encoder.prompt(None) == ''
  with pytest.raises(ValueError, match=r"prompts \['passage', 'query'\], and no 'clustering'"):
    encoder.prompt('clustering')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'dimension': 13}, '--dimension must be from 1 to 12'),
    ({'dimension': 0}, '--dimension must be from 1 to 12'),
    ({'max_length': 1}, '--max_length must be at least 2'),
    ({'batch_size': 0}, '--batch_size must be at least 1'),
    ({'dtype': 'float16'}, '--dtype must be one of'),
    ({'vocabulary': '/nowhere.model'}, 'does not exist'),
  ],
)
def test_settings_out_of_range_are_refused(run, settings, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    encoder_of(run[0], **settings)


def test_texts_that_are_too_long_are_counted(run):
  ours = encoder_of(run[0], max_length=8)
  ours.vectors(TEXTS)
  assert ours.num_cut == sum(len(ids) > 7 for ids in _ids(run, TEXTS))


def _ids(run, texts):
  import sentencepiece

  file = run[1].vocabulary.sentencepiece_model_file
  return sentencepiece.SentencePieceProcessor(file).encode(list(texts))


def test_a_path_that_is_not_there_is_told_without_the_words_of_training():
  with pytest.raises(FileNotFoundError, match='no checkpoint at nowhere') as raised:
    encoder_checkpoint.open_checkpoint('nowhere')
  assert 'Give a MODEL_DIR' in str(raised.value)
  assert 'INITIAL_CHECKPOINT_PATH' not in str(raised.value)
