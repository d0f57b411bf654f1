"""The diagram of layers in docs/design.md is the one that import-linter enforces."""

import pytest

from tests.docs import layers
from tests.docs.commands import ROOT

DIAGRAM = """Text.

```
aya_train
  main
  a | b     a remark
  c

aya_train.c
  d
```
"""


def test_the_diagram_lists_the_layers_of_the_contracts_in_their_order():
  page = (ROOT / layers.PAGE).read_text(encoding='utf-8')
  found = {package: [layer for layer, _ in lines] for package, lines in layers.drawn(page).items()}
  assert found == layers.contracts(), 'python -m tests.docs.layers draws it anew'
  assert list(found) == list(layers.contracts())
  assert page == layers.redrawn(page)


def test_a_diagram_is_read_with_its_remarks():
  assert layers.drawn(DIAGRAM) == {
    'aya_train': [('main', ''), ('a | b', 'a remark'), ('c', '')],
    'aya_train.c': [('d', '')],
  }


@pytest.mark.parametrize(
  'now',
  [
    {'aya_train': ['main', 'a | b', 'c', 'e'], 'aya_train.c': ['d']},
    {'aya_train': ['a | b', 'main', 'c'], 'aya_train.c': ['d']},
    {'aya_train': ['main', 'a | b', 'c']},
  ],
  ids=['a new layer', 'another order', 'a package less'],
)
def test_a_diagram_of_other_contracts_is_drawn_anew(monkeypatch, now):
  monkeypatch.setattr(layers, 'contracts', lambda: now)
  assert layers.redrawn(DIAGRAM) != DIAGRAM
  lines = layers.drawn(layers.redrawn(DIAGRAM))
  assert {package: [layer for layer, _ in of] for package, of in lines.items()} == now
  assert ('a | b', 'a remark') in lines['aya_train']


def test_a_page_without_a_diagram_is_refused():
  with pytest.raises(ValueError, match='no listing'):
    layers.drawn('```\nsomething else\n```')
