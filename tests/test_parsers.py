"""Parsers of what others give, on mutated inputs; `python -m tests.faults.fuzz` has many more."""

import hypothesis
import pytest
from hypothesis import strategies

from tests.faults.fuzz import mutations, parsers, trials

EXPOSED = (
  'license', 'language code', 'slice name', 'gin arguments', 'gin binding', 'gin text', 'HLO text',
  'table TOML', 'table CSV', 'template text', 'JSON line', 'rows CSV', 'rows JSONL', 'summaries',
  'TFRecord frames', 'read report', 'prepared manifest', 'run.json', 'metrics.jsonl',
  'data positions', 'HF config', 'HF index', 'safetensors', 'T5X index',
)  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('inputs')


@pytest.mark.parametrize('name', EXPOSED)
def test_a_parser_returns_or_raises_what_it_says_in_one_message(name, folder):
  parser = parsers.named(name)
  samples = list(parser.samples())
  for sample in samples:
    assert trials.fault(parser, sample, folder) == ''

  @hypothesis.given(strategies.randoms(use_true_random=False))
  @hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  def holds(rng):
    data = mutations.mutated(samples, rng)
    assert trials.fault(parser, data, folder) == '', data[:300]

  holds()


def test_each_parser_has_a_name_of_its_own_and_some_inputs():
  names = [parser.name for parser in parsers.PARSERS]
  assert len(names) == len({*names}) and {*EXPOSED} <= {*names}
  assert all(parser.share > 0 for parser in parsers.PARSERS)
