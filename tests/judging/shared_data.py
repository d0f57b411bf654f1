"""Real data beside the project, which tests read where it is there."""

import pathlib

import pytest

SHARED = pathlib.Path(__file__).parents[3] / 'shared/data'
ARENA = SHARED / 'arena_hard_v01'


def needs(folder: pathlib.Path) -> pytest.MarkDecorator:
  return pytest.mark.skipif(not folder.exists(), reason=f'no {folder.name} beside the project')
