"""Bitext accuracy of aligned vectors, sides of a task that a run never saw, and the map."""

import numpy as np
import pytest

from aya_train.report import embedding_map, plots
from aya_train.tasks.cldr import cldr_pairs


def test_accuracy_is_of_both_directions():
  texts = np.eye(4, dtype=np.float32)
  assert embedding_map._accuracy(texts, texts) == 100
  # Row 1 finds anchor 0, and anchor 0 still finds row 0; anchor 1 finds nothing of its own.
  anchors = texts.copy()
  anchors[1] = [0.0, 0.0, 0.6, 0.0]
  anchors[0] = [0.8, 0.7, 0.0, 0.0]
  assert embedding_map._accuracy(texts, anchors) == pytest.approx(100 * 6 / 8)


def test_names_are_held_against_the_language_that_has_most():
  sides, split = embedding_map._sides(cldr_pairs.TASK, 'validation')
  assert split == 'test'  # which no run trains on, nor is validated on
  names = cldr_pairs.names('test')
  assert len(sides) > 80
  for side in sides:
    assert len({*side.meanings}) == len(side.texts) == len(side.anchors)
    for text, meaning in zip(side.texts, side.meanings, strict=True):
      _, category, entity = meaning.split(' ', 2)
      assert names[category, entity][side.language] == text


def test_pairs_without_groups_are_aligned_and_no_anchor_comes_twice():
  side = embedding_map._of_pairs('swa', [('a', 'x'), ('b', 'y'), ('c', 'x')])
  assert dict(zip(side.anchors, side.texts, strict=True)) == {'x': 'c', 'y': 'b'}


def test_the_plane_keeps_what_differs_most():
  rng = np.random.default_rng(0)
  two = rng.normal(size=(50, 2)) * [5.0, 2.0]
  turned = np.linalg.qr(rng.normal(size=(8, 8)))[0][:2]
  flat = embedding_map.plane((two @ turned + 3.0).astype(np.float32))
  distances = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)
  np.testing.assert_allclose(distances(flat), distances(two), atol=1e-3)


def test_the_most_frequent_names_have_a_colour():
  names = [f'n{i % 8}' for i in range(36)]
  chart = plots.scatter('Map', np.random.default_rng(0).normal(size=(36, 2)), names)
  assert [name for name, _ in chart.keys] == ['n0', 'n1', 'n2', 'n3', 'n4', 'n5']
  assert len({colour for _, colour in chart.keys}) == 6
  assert chart.svg.startswith('<svg')
