"""The table by kind: shares of rows, a copy beside them, and kinds that can only be guessed."""

import json

import pytest

from aya_train.report import kind_table, run_page, run_record
from aya_train.tasks import answer_kinds


def row(kind, prompt, reference, answer, language='deu'):
  return {
    'input': {'inputs_pretokenized': prompt, 'kind': kind},
    'target': [language, reference],
    'prediction': [language, answer],
  }


def run(folder, rows, before=None, task='some'):
  """A run that decoded rows at step 9, and others before training."""
  (folder / 'inference_eval').mkdir(exist_ok=True)
  records = []
  for step, found in ((0, before), (9, rows)):
    if found is not None:
      records.append({'step': step, 'kind': f'infer_eval/{task}', 'exact_match': 1.0})
      lines = ''.join(json.dumps(each) + '\n' for each in found)
      (folder / 'inference_eval' / f'{task}-{step:06d}.jsonl').write_text(lines)
  return run_record.Run(folder, records, {'first_step': 0}, {}, [], '')


@pytest.fixture
def named(monkeypatch):
  """A task whose kind `name` can only be guessed, and whose prompts end with what they ask for."""
  monkeypatch.setattr(answer_kinds, '_OF_TASK', {})
  kinds = answer_kinds.AnswerKinds(
    ('sum', 'echo'), 'Names', 'Nobody told.', lambda kind, prompt: prompt.split()[-1]
  )
  answer_kinds.add('some', kinds)


ROWS = [
  *(row('sum', f'add {i}', str(i + 1), str(i + 1 if i < 6 else 0)) for i in range(8)),
  *(row('echo', f'say {i}', str(i), str(i if i < 1 else 0)) for i in range(4)),
  *(row('name', f'who is {i}', f'n{i}', 'x') for i in range(5)),
  row('city', 'where', 'there', 'there'),
]


def test_kinds_stand_apart_from_those_that_can_only_be_guessed(tmp_path, named):
  untrained = [{**each, 'prediction': ['deu', '3']} for each in ROWS]
  table = kind_table.of_run(run(tmp_path, ROWS, untrained))
  found = [(k.name, k.rows, k.copied, k.before, k.after) for k in table.kinds]
  assert found == [('sum', 8, 0, 12.5, 75), ('echo', 4, 100, 25, 25)]
  assert (table.together.rows, table.together.after) == (12, pytest.approx(100 * 7 / 12))
  assert (table.others.rows, table.others.name) == (6, 'Names (2 kinds)')
  assert table.others.after == pytest.approx(100 / 6)
  assert table.why == 'Nobody told.'
  assert table.lines == [*table.kinds, table.together, table.others]


def test_a_task_of_which_nothing_was_said_has_all_its_kinds_alike(tmp_path):
  rows = [row('a', 'x', 'X', 'x'), row('b', 'y', 'y', 'y')]
  table = kind_table.of_run(run(tmp_path, rows, task='own'))
  assert [(k.name, k.copied, k.before, k.after) for k in table.kinds] == [
    ('b', 100, None, 100),
    ('a', 0, None, 0),
  ]
  assert (table.others, table.why, table.together.name) == (None, '', 'All 2 kinds')


def test_rows_without_a_kind_and_runs_that_keep_no_answers_have_no_table(tmp_path):
  plain = row('a', 'x', 'X', 'x')
  del plain['input']['kind']
  assert kind_table.of_run(run(tmp_path, [plain])) is None
  assert kind_table.of_run(run_record.Run(tmp_path / 'none', [], {}, {}, [], '')) is None


@pytest.mark.parametrize('count', [1, 3, 6, 12, 40])
def test_a_sample_has_right_and_wrong_answers_and_kinds_in_their_shares(tmp_path, named, count):
  table = kind_table.of_run(run(tmp_path, ROWS))
  picked = kind_table.sample(table, count)
  assert len(picked) == len(set(picked)) == min(count, 12)
  assert {each.kind for each in picked} <= {'sum', 'echo'}
  right = sum(each.hit for each in picked)
  assert abs(right - len(picked) * 7 / 12) < 1
  assert [each.kind for each in picked] == sorted(each.kind for each in picked)


def test_the_terminal_shows_the_table(tmp_path, named, capsys):
  table = kind_table.of_run(run(tmp_path, ROWS))
  run_page._print_kinds(table, ('untrained', 'trained'))
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].split() == ['Exact', 'match', 'rows', 'a', 'copy', 'untrained', 'trained']
  assert lines[2].split() == ['sum', '8', '0.0', '%', '–', '75.0', '%']
  assert lines[-1] == 'Nobody told.'
  assert len({len(line) for line in lines[1:-1]}) == 1
