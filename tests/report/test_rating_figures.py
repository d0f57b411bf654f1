import random

import editdistance
import pytest

from aya_train.annotation import exports
from aya_train.report import rating_figures


def rating(source, decision, answer='answer', edited='answer', language='yor', prompt='prompt'):
  return exports.Rating(
    *('id', source, 'task', language, 'Ada', decision, prompt, answer, prompt, edited)
  )


def test_approval_is_of_what_was_not_skipped_and_distances_of_what_was_edited():
  ratings = [
    rating('xp3', 'approved'),
    rating('xp3', 'approved'),
    rating('xp3', 'edited', 'kitten', 'sitting'),
    rating('xp3', 'edited', 'ሰላም', ''),
    rating('xp3', 'skipped'),
    rating('p3', 'skipped'),
  ]
  big, small = rating_figures.by(ratings, lambda r: r.source)
  assert (big.name, big.rows, big.skipped, big.edited) == ('xp3', 5, 1, 2)
  assert big.approved.percent == 50 and big.approved.count == 4
  assert big.distance == pytest.approx((3 + 3) / 2)
  assert big.share == pytest.approx(100 * (3 / 13 + 3 / 9) / 2)
  assert big.small == 2
  assert (small.approved, small.distance, small.share) == (None, None, None)


def test_distances_are_levenshtein_s_and_those_of_long_texts_are_quick():
  draw = random.Random(0)
  for _ in range(300):
    one, two = (''.join(draw.choices('aآ', k=draw.randrange(8))) for _ in range(2))
    assert rating_figures.distance(one, two) == editdistance.eval(one, two)
  long = 'الجواب هنا. ' * 20_000
  assert rating_figures.distance(long, f'{long[:100_000]}xyz{long[100_001:]}') == 3
