import pytest

from tests.docs import sandbox
from tests.docs.reader import Reader


@pytest.fixture(scope='session')
def reader(tmp_path_factory):
  """A reader with a sandbox of its own; made once in each process of pytest."""
  return Reader(sandbox.Sandbox(tmp_path_factory.mktemp('docs')))
