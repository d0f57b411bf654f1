import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest

from aya_train import value_types


@pytest.mark.parametrize(
  ('value', 'hint', 'want'),
  [
    (3, int, True),
    (3.0, int, False),
    ('3', int, False),
    (True, int, False),
    (3, float, True),
    (True, float, False),
    (1, bool, False),
    (None, int | None, True),
    (None, int, False),
    ('x', int | None, False),
    ('x', str | os.PathLike[str] | None, True),
    ({'inputs': 3}, Mapping[str, int], True),
    ({'inputs': None}, Mapping[str, int], False),
    ({3: 3}, Mapping[str, int], False),
    ('data', Mapping[str, int], False),
    ('x.toml', Sequence[str], False),
    (['x.toml'], Sequence[str], True),
    (('x.toml', 3), tuple[str, ...], False),
    ((1, 'x'), tuple[int, str], True),
    ((1,), tuple[int, str], False),
    ('a', Literal['a', 'b'], True),
    ('c', Literal['a', 'b'], False),
    (3, Callable[..., Any], False),
    (len, Callable[..., Any], True),
    ('name', Mapping[str, int] | Any, True),
    ('name', value_types.Any, True),
    ('name', pytest.Item, False),
  ],
)
def test_a_value_fits_a_hint(value, hint, want):
  assert value_types.fits(value, hint) == want


@pytest.mark.parametrize(
  ('hint', 'words'),
  [
    (int | None, 'a whole number or None'),
    (Mapping[str, int], 'a dict of a string to a whole number'),
    (Sequence[str], 'a tuple, each a string'),
    (str | os.PathLike[str], 'a string'),
    (Literal['a', 'b'], "'a' or 'b'"),
    (pytest.Item, 'a reference to Item, @...'),
  ],
)
def test_a_hint_in_words(hint, words):
  assert value_types.describe(hint) == words
