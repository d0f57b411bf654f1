import pytest

from tests.checkpoint import small_model


@pytest.fixture(scope='session')
def vocabulary_file(tmp_path_factory):
  return small_model.train_vocabulary(tmp_path_factory.mktemp('vocabulary'))
