"""Figures in the documentation that are constants or defaults of the code, not of gin."""

import importlib.util
import re

import pytest

from aya_train.cli import main
from aya_train.data import batching, prepared_shards
from aya_train.report import data_page
from aya_train.tasks.building import records
from aya_train.tasks.cldr import vocabulary
from aya_train.tasks.user import template_language, template_worker
from aya_train.tpu import topologies
from tests.docs import settings
from tests.docs.commands import ROOT


def option(command: str, name: str) -> object:
  """Default of an option of aya-train."""
  return getattr(main.parser().parse_args(command.split()), name)


CONTAMINATION = 'contamination mixture --against task'
# Page, a sentence with a group for the figure, and what the code says.
FIGURES = [
  ('docs/mixtures.md', r'`--ngram (\d+)`', lambda: option(CONTAMINATION, 'ngram')),
  ('docs/mixtures.md', r'`--threshold (\S+)`', lambda: option(CONTAMINATION, 'threshold')),
  ('docs/mixtures.md', r'`--budget` draws \(default ([\d,]+),', lambda: data_page.AYA_SAMPLES),
  ('docs/mixtures.md', r'of their own with (\d+) MiB', lambda: template_worker.MEGABYTES),
  ('docs/mixtures.md', r'has at most ([\d,]+) numbers', lambda: template_language.MAX_RANGE),
  ('docs/mixtures.md', r'A row has at most ([\d,]+) char', lambda: template_language.MAX_OUTPUT),
  ('docs/data.md', r'`--max_bad_rows` \((\d+) %', lambda: 100 * option('prepare', 'max_bad_rows')),
  ('docs/data.md', r'it gets one for ([\d,]+)', lambda: prepared_shards.ROWS_PER_SHARD),
  (
    'docs/data.md',
    r'units of about (\d+) MiB',
    lambda: settings.parameters(records.parts)['megabytes'],
  ),
  (
    'docs/data.md',
    r'units of about \d+ MiB or ([\d,]+) rows',
    lambda: settings.parameters(records.parts)['rows'],
  ),
  (
    'docs/data.md',
    r'a window \(`num_packing_examples`, (\d+)\)',
    lambda: settings.parameters(batching.DatasetConfig)['num_packing_examples'],
  ),
  ('docs/data.md', r'a unigram model of ([\d,]+) ids', lambda: vocabulary.DEFAULT_SIZE),
]


@pytest.mark.parametrize(('page', 'pattern', 'actual'), FIGURES)
def test_a_figure_is_that_of_the_code(page, pattern, actual):
  [told] = settings.sentence(page, pattern)
  assert settings.says(told, actual())
  assert not settings.says(told, settings.changed(actual()))


def test_rates_of_the_chip_are_those_of_the_roofline():
  chip = topologies.get('v4-128').chip
  rates = settings.sentence(
    'docs/tpu.md', r'FLOPs / (\S+), traffic / (\S+) and wire / ([\d.]+e\d+)'
  )
  actual = (chip.flops, chip.hbm_bandwidth, chip.ici_bandwidth)
  for rate, expected in zip(rates, actual, strict=True):
    assert float(rate) == pytest.approx(expected, rel=1e-3)


def test_runtimes_of_slices_are_those_of_the_launcher():
  spec = importlib.util.spec_from_file_location('slices', ROOT / 'launch/slices.py')
  slices = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(slices)
  text = (ROOT / 'launch/README.md').read_text(encoding='utf-8')
  [row] = [line for line in text.splitlines() if line.startswith('| `--runtime` |')]
  told = dict(re.findall(r'`([\w-]+)` for (v\w+)', row))
  assert {name: runtime for runtime, name in told.items()} == {
    name: generation.runtime for name, generation in slices.GENERATIONS.items()
  }


def test_variables_of_the_launchers_have_the_defaults_that_are_told():
  text = (ROOT / 'launch/README.md').read_text(encoding='utf-8')
  [rows] = [rows for _, names, rows in settings.tables(text) if names[0] == 'variable']
  scripts = '\n'.join(path.read_text() for path in sorted((ROOT / 'launch').glob('*.sh')))
  sources = scripts + ''.join(path.read_text() for path in (ROOT / 'tasks').glob('*.py'))
  for name, _, default in rows:
    assert name in sources, name
    for found in re.findall(rf'\$\{{{name}:-([^}}]+)\}}', scripts):
      place = found.replace('$root/', '').replace('$run/', '')
      assert place in default.replace('`', '') or '$' in found, (name, found)
