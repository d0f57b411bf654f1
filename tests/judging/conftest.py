"""What tests of judges share."""

import pytest

from tests.judging import stand_in_judge


@pytest.fixture
def key(monkeypatch):
  """The key that the endpoint's client finds in the environment."""
  monkeypatch.setenv('OPENAI_API_KEY', stand_in_judge.KEY)
