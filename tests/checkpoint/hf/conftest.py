"""Exports of a small network."""

import pytest

from aya_train.checkpoint.hf import hf_export
from tests.checkpoint import small_model


@pytest.fixture
def export(vocabulary_file, tmp_path):
  def run(config=None, params=None, out='model', **kwargs):
    config = config or small_model.config()
    params = small_model.random_params(config) if params is None else params
    return hf_export.export(params, config, vocabulary_file, tmp_path / out, **kwargs)

  return run
