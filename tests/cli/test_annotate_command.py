import json

import pytest

from aya_train.annotation import batches, exports
from aya_train.cli import main
from tests.annotation import test_exports


@pytest.fixture
def answers(tmp_path):
  for system in 'ab':
    rows = [
      {'inputs': f'p{i}', 'prediction': f'{system}{i}', 'language': ('ar', 'th')[i % 2]}
      for i in range(8)
    ]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / f'{system}.jsonl').write_text(text)
  return [str(tmp_path / f'{system}.jsonl') for system in 'ab']


def test_pairs_are_written_a_page_a_language(answers, tmp_path, capsys):
  out = tmp_path / 'out'
  assert main.main(['annotate', 'pairs', *answers, '--output', str(out), '--each', '3']) == 0
  assert capsys.readouterr().out.count('(3 items)') == 2
  assert sorted(path.name for path in out.iterdir()) == sorted(
    f'pairs_{code}.{ending}'
    for code in ('ara', 'tha')
    for ending in ('html', 'label_studio.json', 'label_studio.xml')
  )
  tasks = json.loads((out / 'pairs_tha.label_studio.json').read_text())
  assert {batches.revealed(t['data']['key'])['language'] for t in tasks} == {'tha'}


def test_what_people_decided_is_collected_in_one_file(answers, tmp_path):
  out = tmp_path / 'out'
  assert main.main(['annotate', 'pairs', *answers, '--output', str(out), '--together']) == 0
  tasks = json.loads((out / 'pairs_all.label_studio.json').read_text())
  items = [
    batches.Item(d['id'], '', d['prompt'], [d['first'], d['second']], d['key'])
    for d in (task['data'] for task in tasks)
  ]
  export = test_exports.write(
    tmp_path / 'ada.json', test_exports.page_export(items, ['first'] * len(items))
  )
  lines = tmp_path / 'verdicts.jsonl'
  assert main.main(['annotate', 'collect', str(export), '--output', str(lines)]) == 0
  assert exports.read([lines]).verdicts == exports.read([export]).verdicts
  assert {v.systems for v in exports.read([lines]).verdicts} == {('a', 'b')}


@pytest.mark.parametrize(
  ('more', 'told'),
  [
    (['--names', 'x'], '2 different names are needed'),
    (['--names', 'x', 'x'], '2 different names are needed'),
    (['--languages', 'yor'], "no answers in ['yor']; there are answers in ['ara', 'tha']"),
    (['--each', '0'], '--each must be at least 1, got 0'),
  ],
)
def test_wrong_wishes_are_told(answers, tmp_path, capsys, more, told):
  assert main.main(['annotate', 'pairs', *answers, '--output', str(tmp_path / 'o'), *more]) == 1
  assert told in capsys.readouterr().err


def test_answers_of_one_system_are_no_pair(answers, tmp_path, capsys):
  assert main.main(['annotate', 'pairs', answers[0], '--output', str(tmp_path / 'o')]) == 1
  assert 'answers of two systems or more' in capsys.readouterr().err
