"""Weights of mixtures that the documentation tells, held against the tables of the tasks."""

import re

import pytest

from aya_train.tasks.cldr import cldr_rows, cldr_tasks
from aya_train.tasks.mixtures import aya_mixtures
from tests.docs import settings
from tests.docs.commands import ROOT

# A name in the documentation -> the source.
NAMED = {
  'Aya Dataset': aya_mixtures.ANNOTATED,
  'templated': aya_mixtures.TEMPLATED,
  'Aya Collection templates': aya_mixtures.TEMPLATED,
  'xP3x': aya_mixtures.XP3X,
  'Data Provenance': aya_mixtures.PROVENANCE,
  'translated': aya_mixtures.TRANSLATED,
  'Aya Collection translations': aya_mixtures.TRANSLATED,
  'ShareGPT-Command': aya_mixtures.SHAREGPT,
}
ABSENT = '-'


def of_table():
  """Mixture -> percent by source, as docs/mixtures.md has them in its table."""
  text = (ROOT / 'docs/mixtures.md').read_text(encoding='utf-8')
  [(header, rows)] = [
    (header, rows) for _, header, rows in settings.tables(text) if header[1:2] == ['Aya Dataset']
  ]
  assert (header[0], header[-1]) == ('mixture', 'origin')
  told = {}
  for first, *cells, _ in rows:
    pairs = zip((NAMED[name] for name in header[1:-1]), cells, strict=True)
    percent = {source: float(cell) for source, cell in pairs if cell != ABSENT}
    told |= dict.fromkeys(re.findall(r'`(\w+)`', first), percent)
  return told


def of_recipe():
  """Percent by source in the sentence of docs/recipe.md."""
  [words] = settings.sentence('docs/recipe.md', r'"translation heavy"\): (.+?)\. ')
  pairs = [name_and_number.rsplit(' ', 1) for name_and_number in words.split(', ')]
  return {NAMED[name]: float(number) for name, number in pairs}


def of_kinds():
  """Rates of the kinds of `cldr_smoke`, as docs/data.md has them in a cell."""
  groups, others = settings.sentence(
    'docs/data.md', r'\| `cldr_smoke` \| mixture of kinds: (.+), the others (\d+) \|'
  )
  told = dict.fromkeys(cldr_rows.KINDS, float(others))
  for names, number in re.findall(r'((?:`\w+`(?:, | and )?)+) (\d+)', groups):
    told |= dict.fromkeys(re.findall(r'`(\w+)`', names), float(number))
  return told


def rounded(weights):
  return {source: round(percent, 2) for source, percent in weights.items()}


def weights_of(name):
  return aya_mixtures.WEIGHTS[name].percent


def test_the_table_of_mixtures_is_the_one_of_the_code():
  told = of_table()
  assert len(told) >= 5
  assert told == {name: rounded(weights_of(name)) for name in told}


def test_the_recipe_tells_the_released_weights():
  assert of_recipe() == weights_of('aya101')


def test_the_rates_of_kinds_are_told():
  assert of_kinds() == cldr_tasks.SMOKE_RATES


def test_mixtures_in_words_have_the_weights_of_the_words():
  page = 'docs/mixtures.md'
  [safe, scaled] = settings.sentence(page, r'\| ([\d.]+) % for `safety_\w+`, .+ to ([\d.]+) %')
  for name in ('aya_safe', 'aya_safe_open'):
    percent = weights_of(name)
    assert percent[aya_mixtures.SAFE] == float(safe)
    assert sum(percent.values()) - percent[aya_mixtures.SAFE] == pytest.approx(float(scaled))
  assert weights_of('mt0') == {aya_mixtures.XP3: 100}
  assert weights_of('mt0x') == weights_of('aya_ablation_1_xp3x') == {aya_mixtures.XP3X_FULL: 100}
  [share, tokens] = settings.sentence(
    page, r"\| ([\w ]+) of each source's draws.+ has (\d+) tokens"
  )
  assert {'three quarters': 0.75, 'half': 0.5}[share] == aya_mixtures.LONG_ANSWER_SHARE
  assert int(tokens) == aya_mixtures.LONG_ANSWER_TOKENS


@pytest.mark.parametrize('source', sorted(set(NAMED.values())))
@pytest.mark.parametrize('name', ['aya101', 'aya_human_heavy', 'aya_template_heavy', 'aya_open'])
def test_another_weight_is_noticed(monkeypatch, name, source):
  """A number changed alone, as one would in the code."""
  weights = dict(weights_of(name))
  weights[source] = weights.get(source, 0) + 0.1
  changed = aya_mixtures.Weights(weights, 'changed')
  monkeypatch.setitem(aya_mixtures.WEIGHTS, name, changed)
  assert of_table()[name] != rounded(weights_of(name))
  assert name != 'aya101' or of_recipe() != weights


@pytest.mark.parametrize('kind', cldr_rows.KINDS)
def test_another_rate_of_a_kind_is_noticed(monkeypatch, kind):
  monkeypatch.setitem(cldr_tasks.SMOKE_RATES, kind, cldr_tasks.SMOKE_RATES[kind] + 1)
  assert of_kinds() != cldr_tasks.SMOKE_RATES
