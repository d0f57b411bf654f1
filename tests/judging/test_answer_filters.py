import hypothesis
import pytest
from hypothesis import strategies

from aya_train.judging import answer_filters


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('x' * 19, 'short'),
    (' ' * 30 + 'x' * 19, 'short'),
    ('abcdefghijklmnopqrst', ''),
    ('ab' * 500 + 'c', 'long'),
    ('I cannot help with that. ' * 2, 'repeated'),
    ('ሰላም ' * 20, 'repeated'),
    ('I cannot help with that. No, I cannot help with it, since it would hurt people.', ''),
  ],
)
def test_what_goes_and_why(text, reason):
  assert answer_filters.Filters().reason(text) == reason


@hypothesis.given(strategies.text('ab', max_size=30), strategies.floats(0, 30))
@hypothesis.settings(max_examples=100, deadline=None)
def test_repeats_is_what_its_definition_says(text, longer_than):
  parts = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
  twice = {part for part in parts if parts.count(part) > 1}
  assert answer_filters.repeats(text, longer_than) == any(len(p) > longer_than for p in twice)
