import pytest

from tests.launch.cloud import Cloud


@pytest.fixture
def cloud(tmp_path):
  cloud = Cloud(tmp_path)
  yield cloud
  cloud.end()
