"""Arrays are put on devices without being on the host as a whole beside them."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from aya_train import partitioning
from aya_train.checkpoint import formats, reading, restoration
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import hf_export
from aya_train.models import network
from aya_train.objectives import seq2seq
from aya_train.tasks import shared_vocabulary
from tests.checkpoint import small_model

VALUES = np.random.default_rng(0).normal(size=(96, 40)).astype(np.float32)
PIECE = 2048  # bytes


def watched(array: lazy_arrays.LazyArray) -> tuple[lazy_arrays.LazyArray, list[int]]:
  """An array, and how many numbers each reading of it takes."""
  read = []

  def get(index):
    read.append(math.prod(i.stop - i.start for i in index))
    return array.get(index)

  return dataclasses.replace(array, get=get), read


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('chunks', [None, (7, 40), (5, 11)])
def test_a_large_array_is_read_piece_by_piece(monkeypatch, dtype, turned, chunks):
  monkeypatch.setattr(restoration, '_PIECE_BYTES', PIECE)
  source = dataclasses.replace(lazy_arrays.of(VALUES), chunks=chunks)
  array, read = watched(source)
  array = lazy_arrays.transpose(array) if turned else array
  found = restoration.place(array, jax.ShapeDtypeStruct(array.shape, dtype))
  wanted = (VALUES.T if turned else VALUES).astype(found.dtype)
  assert found.dtype == dtype
  np.testing.assert_array_equal(np.asarray(found), wanted)
  assert max(read) * 4 <= PIECE and sum(read) == VALUES.size


def test_what_is_read_whole_anyway_is_read_once(monkeypatch):
  monkeypatch.setattr(restoration, '_PIECE_BYTES', PIECE)
  array, read = watched(dataclasses.replace(lazy_arrays.of(VALUES), chunks=VALUES.shape))
  found = restoration.place(array, jax.ShapeDtypeStruct(VALUES.shape, 'float32'))
  np.testing.assert_array_equal(np.asarray(found), VALUES)
  assert read == [VALUES.size]


def test_parameters_are_read_in_their_dtype(monkeypatch, vocabulary_file, tmp_path):
  monkeypatch.setattr(restoration, '_PIECE_BYTES', PIECE)
  config = small_model.config()
  params = small_model.random_params(config)
  folder = hf_export.export(params, config, vocabulary_file, tmp_path / 'model')
  shared_vocabulary.set_vocabulary(vocabulary_file)
  vocabulary = shared_vocabulary.TextVocabulary()
  model = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
  source = formats.detect(folder)
  try:
    for dtype in ('float32', 'bfloat16'):
      found = reading.read_for(model, partitioning.one_device(), source, dtype)
      for name, value in params.items():
        leaf = found
        for key in name.split('/'):
          leaf = leaf[key]
        assert leaf.dtype == dtype
        np.testing.assert_array_equal(np.asarray(leaf), value.astype(leaf.dtype))
  finally:
    shared_vocabulary.set_vocabulary(None)
