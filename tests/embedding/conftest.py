"""One small run of embeddings for all tests of vectors."""

import json

import pytest

from aya_train import partitioning
from aya_train.embedding import encoder_checkpoint, text_encoder
from tests.embedding import embedding_runs


@pytest.fixture(scope='session')
def run(tmp_path_factory, vocabulary_file):
  """Its MODEL_DIR, model and parameters."""
  folder = tmp_path_factory.mktemp('embedding_run')
  return folder, *embedding_runs.write_run(folder, vocabulary_file)


@pytest.fixture(scope='session')
def encoder(run):
  checkpoint = encoder_checkpoint.open_checkpoint(run[0])
  return text_encoder.TextEncoder(checkpoint, partitioning.one_device())


@pytest.fixture(scope='session')
def corpus_file(tmp_path_factory):
  """JSON lines of texts of many lengths, some of them nearly the same."""
  path = tmp_path_factory.mktemp('corpus') / 'corpus.jsonl'
  rows = [
    {'_id': f'd{i}', 'text': ' '.join([text, *['and', str(i)] * (i % 3)])}
    for i, text in enumerate(embedding_runs.TEXTS * 4)
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path
