"""Translations that are killed at any moment, and gone on with by other numbers of workers."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.faults
ROWS = 3_000
WORKERS = (2, 1, 3)  # of the commands that are killed, one after another
HARD = (
  'Question {i}: is `x = {i}` in {{name}} right? See https://ex.org/{i}.\n- yes\n- no way\n'
  '```\nwords of code {i}\n```\n| a | {i} |\n'
)


def command(output, workers):
  return [
    *(sys.executable, '-m', 'aya_train', 'translate', 'rows.jsonl', '--license', 'CC BY 4.0'),
    *('--to', 'yor,tha', '--engine', 'identity', '--thresholds', 'gates.toml'),
    *('--rows_of_unit', '40', '--workers', str(workers), '--output', str(output)),
  ]


def contents(folder):
  return sorted(
    (str(path.relative_to(folder)), path.read_bytes())
    for path in folder.rglob('*')
    if path.is_file()
  )


def test_the_bytes_are_those_of_a_whole_translation_and_nothing_is_left(tmp_path):
  pytest.importorskip('sentencex', reason='needs the extra `translate`')
  rows = [{'inputs': HARD.format(i=i), 'targets': 'no way' if i % 7 else ''} for i in range(ROWS)]
  (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (tmp_path / 'gates.toml').write_text(
    '[default]\ncopied_from = 100000\nuntranslated_from = 100000\nlanguage = false\n'
  )
  draws = random.Random(0)

  def run(folder, workers):
    return subprocess.Popen(
      command(tmp_path / folder, workers),
      cwd=tmp_path,
      env=os.environ | {'AYA_TRAIN_CACHE': str(tmp_path / 'cache')},
      start_new_session=True,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
    )

  started = time.monotonic()
  whole = run('whole', 1)
  _, said = whole.communicate(timeout=300)
  took = time.monotonic() - started
  assert whole.returncode == 0, said

  def is_begun():
    return any((tmp_path / 'killed').glob('in_progress/units/*/*'))

  inside = 0
  for workers in WORKERS:
    process = run('killed', workers)
    time.sleep(draws.uniform(0.2, 0.6) * took)
    while process.poll() is None and not is_begun():
      time.sleep(0.02)  # on a busy machine it starts more slowly than the first one did
    inside += process.poll() is None and is_begun()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
  assert inside
  last = run('killed', 2)
  _, said = last.communicate(timeout=300)
  assert last.returncode == 0, said
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
  report = json.loads((tmp_path / 'killed' / 'report.json').read_text())
  empty = len([row for row in rows if not row['targets']])
  for language in ('yor', 'tha'):
    assert report['languages'][language]['rejected'] == {'empty_source': empty}
    lines = (tmp_path / 'killed' / 'rejects' / f'{language}.jsonl').read_text().splitlines()
    assert [json.loads(line)['row']['inputs'] for line in lines] == [
      row['inputs'] for row in rows if not row['targets']
    ]
