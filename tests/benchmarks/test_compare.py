"""A regression is told from noise, and from a slower machine."""

import json
import sys

import numpy as np
import pytest

from benchmarks import compare, measurement

VERSIONS = {'aya-train': '1', 'jax': '2'}


def run(seconds, peer=None, rows=100, versions=VERSIONS, benchmark='packing'):
  work = {'name': 'pairs', 'count': 10, 'unit': 'pairs'}
  result = {'work': work, 'peak_bytes': 0, 'begin_bytes': 0}
  results = [{**result, 'way': 'ours', 'seconds': list(seconds), 'figures': {'rows': [rows] * 3}}]
  if peer is not None:
    results.append({**result, 'way': 'peer', 'seconds': list(peer), 'figures': {}})
  machine = {'versions': versions, 'processor': 'x', 'cores': 2, 'memory_bytes': 1}
  return {'format': 1, 'benchmark': benchmark, 'machine': machine, 'results': results}


def noisy(mean, seed, count=6):
  return mean * np.random.default_rng(seed).lognormal(0, 0.02, count)


def verdicts(*runs, **options):
  return {c.what: c.verdict for c in compare.compare(*runs, **options)}


@pytest.mark.parametrize(
  ('factor', 'verdict'), [(1.0, 'noise'), (1.2, 'worse'), (0.8, 'better'), (1.001, 'noise')]
)
def test_seconds(factor, verdict):
  found = verdicts(run(noisy(1.0, 1)), run(noisy(factor, 2)))
  assert found == {'pairs: ours, seconds': verdict}


def test_of_equal_programs_one_in_a_hundred_is_called_another():
  false = sum(
    verdicts(run(noisy(1, 2 * i)), run(noisy(1, 2 * i + 1)), least=0)['pairs: ours, seconds']
    != 'noise'
    for i in range(300)
  )
  assert false <= 9


def test_a_slower_machine_is_no_regression_where_peers_tell():
  before, after = run(noisy(1, 1), noisy(2, 2)), run(noisy(1.5, 3), noisy(3, 4))
  assert verdicts(before, after)['pairs: ours, seconds'] == 'noise'
  after['machine']['versions'] = {'jax': '3'}
  assert verdicts(before, after)['pairs: ours, seconds'] == 'worse'


def test_rows_are_counted_and_few_rounds_tell_nothing():
  changes = compare.compare(run([1, 1, 1]), run([2, 2, 2], rows=101))
  assert [c.verdict for c in changes] == ['noise', 'worse']
  assert 'too few rounds' in changes[0].note


def test_other_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match="two benchmarks: 'packing' and 'decode'"):
    compare.compare(run([1]), run([1], benchmark='decode'))
  (tmp_path / 'a.json').write_text('[]')
  with pytest.raises(ValueError, match=r'a\.json is no file that a benchmark wrote'):
    compare.read(tmp_path / 'a.json')


def test_it_ends_with_1_if_something_got_worse(tmp_path, monkeypatch, capsys):
  names = [str(tmp_path / name) for name in ('a.json', 'b.json')]
  for name, rows in zip(names, (100, 120), strict=True):
    with open(name, 'w') as file:
      json.dump(run([1, 1], rows=rows), file)
  for words, code in ((names, 1), (names[::-1], 0)):
    monkeypatch.setattr(sys, 'argv', ['compare', *words])
    with pytest.raises(SystemExit) as ended:
      compare.main()
    assert ended.value.code == code
  assert 'worse    x 1.200' in capsys.readouterr().out


def waits(seconds, missing=False):
  if missing:
    raise measurement.NotHere('no such library')
  count = iter(range(100))
  return lambda: {'number': next(count)}


def test_ways_are_measured_in_turns_and_what_is_not_here_is_left_out(tmp_path):
  said = []
  found = measurement.measure(
    measurement.Work('nothing', 10, 'rows'),
    {'ours': (waits, {'seconds': 0}), 'peer': (waits, {'seconds': 0, 'missing': True})},
    3,
    said.append,
  )
  [ours] = found
  assert said == ['nothing: peer is left out: no such library']
  assert (ours.way, len(ours.seconds)) == ('ours', 3)
  assert ours.figures == {'number': (1.0, 2.0, 3.0)}, 'the first run is not timed'
  (tmp_path / 'x.json').write_text(measurement.to_json('none', {}, found))
  assert compare.read(tmp_path / 'x.json')['results'][0]['seconds'] == list(ours.seconds)
  assert measurement.table(found)[2].startswith('| nothing | ours |')
