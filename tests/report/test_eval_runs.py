import json

import pytest

from aya_train.report import eval_runs
from tests.report import eval_outputs


def outcome(folder, hits=(True, False), **kwargs):
  return eval_outputs.write(folder, [eval_outputs.ranked('est', 'p', list(hits))], **kwargs)


def test_steps_of_a_run_are_found_in_its_folder_by_step(tmp_path):
  outcome(tmp_path / 'run/evals/b', step=20)
  outcome(tmp_path / 'run/evals/a', step=100)
  outcome(tmp_path / 'single', step=None)
  found = eval_runs.read_all([str(tmp_path / 'run'), f'mine={tmp_path / "single"}'])
  assert [(e.run, e.step) for e in found] == [('run', 20), ('run', 100), ('mine', None)]
  assert [e.name for e in found] == ['run, step 20', 'run, step 100', 'mine']


def test_checkpoints_that_an_output_folder_held_earlier_belong_to_its_run(tmp_path):
  outcome(tmp_path, step=30)
  outcome(tmp_path / 'earlier/step_10', step=10)
  assert [e.step for e in eval_runs.read_all([str(tmp_path)])] == [10, 30]


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path):
  outcome(tmp_path / 'a/eval')
  outcome(tmp_path / 'b/eval')
  found = eval_runs.read_all([str(tmp_path / 'a/eval'), str(tmp_path / 'b/eval')])
  assert [e.run for e in found] == ['a/eval', 'b/eval']
  with pytest.raises(ValueError, match='the same, or have one name'):
    eval_runs.read_all([str(tmp_path / 'a/eval')] * 2)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"tasks": {', 'results.json is damaged'),
    ('[]', 'no result of `aya-train eval`: .* got list'),
    ('{"results": {}, "configs": {}}', r"no result of `aya-train eval`.*\['configs', 'results'\]"),
    ('{"tasks": []}', 'no result of `aya-train eval`'),
  ],
)
def test_other_files_are_refused_in_words(tmp_path, text, message):
  (tmp_path / 'results.json').write_text(text)
  with pytest.raises(ValueError, match=message):
    eval_runs.read(tmp_path)


def test_a_folder_without_results_is_refused_in_words(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no results.json in .*EVAL_OUTPUT_DIR'):
    eval_runs.read_all([str(tmp_path)])
  with pytest.raises(FileNotFoundError, match='which is no folder'):
    eval_runs.read_all([str(tmp_path / 'nothing')])


def test_single_tasks_that_cannot_be_read_are_told_and_left_out(tmp_path):
  outcome(tmp_path)
  path = tmp_path / 'results.json'
  written = json.loads(path.read_text())
  (task,) = written['tasks'].values()
  written['tasks'] |= {
    'no_metrics': {**task, 'metrics': None},
    'no_count': {**task, 'num_examples': None},
    'text': 'x',
    'nan': {**task, 'metrics': {'accuracy': float('nan'), 'ties': 3.0, 'f1': None}},
    'empty': {**task, 'num_examples': 0},
    'newer': {**task, 'about': {**task['about'], 'colour': 'red'}},
  }
  written['left_out'] = {'other.task': 'no rows of it are here'}
  path.write_text(json.dumps(written))
  found = eval_runs.read(tmp_path)
  assert sorted(found.results) == ['empty', 'nan', 'newer', 'xcopa.est.p']
  assert dict(found.results['nan'].metrics) == {'ties': 3.0}
  told = '\n'.join(found.problems)
  for part in (
    'task no_metrics is left out',
    'task no_count is left out',
    'task text is left out',
    'task nan: not finite, so not shown: accuracy = nan, f1 = None',
    'task empty has no examples',
    "unknown keys ['colour']",
    'not evaluated, no rows of it are here: other.task',
  ):
    assert part in told


def test_torn_and_repeated_lines_are_told_and_left_out(tmp_path):
  outcome(tmp_path, [True] * 4)
  path = tmp_path / 'predictions/xcopa.est.p.jsonl'
  lines = path.read_text().splitlines()
  other = json.dumps({**json.loads(lines[0]), 'task': 'another'})
  content = [lines[0], lines[1][:20], '', lines[0], lines[2], other, '[1]', lines[3][:-3]]
  path.write_text('\n'.join(content))
  problems = []
  found = list(eval_runs.predictions(eval_runs.read(tmp_path), 'xcopa.est.p', problems))
  assert [p.index for p in found] == [0, 2]
  assert 'line 2, 6, 7, 8: torn or no prediction of the task' in problems[0]
  assert 'line 4: of an example that an earlier line answers' in problems[1]


def test_a_task_without_predictions_has_none(tmp_path):
  outcome(tmp_path)
  (tmp_path / 'predictions/xcopa.est.p.jsonl').unlink()
  assert list(eval_runs.predictions(eval_runs.read(tmp_path), 'xcopa.est.p', [])) == []


def test_a_model_and_its_settings_are_one_line(tmp_path):
  outcome(tmp_path, step=0)
  path = tmp_path / 'results.json'
  network = {'num_encoder_layers': 24, 'num_decoder_layers': 12, 'emb_dim': 4096}
  written = {**json.loads(path.read_text()), 'model': {'architecture': network}}
  written['settings'] = {'format': 'hf', 'activation_dtype': 'bfloat16'}
  path.write_text(json.dumps(written))
  found = eval_runs.read(tmp_path, 'mine')
  assert (found.name, found.model) == ('mine', 'hf, bfloat16, 24 + 12 layers of width 4096')
  assert found.settings['model'] == {'architecture': network}


def test_settings_that_changed_between_tasks_are_told(tmp_path):
  folder = eval_outputs.write(tmp_path / 'a', [eval_outputs.ranked('swa', p, [1]) for p in 'xyz'])
  path = folder / 'results.json'
  content = json.loads(path.read_text())
  for task, lengths in zip(content['tasks'].values(), (1, 2, 3), strict=True):
    task['settings'] = {'decoding': 'greedy', 'num_examples': None, 'lengths': lengths}
  path.write_text(json.dumps(content))
  assert not eval_runs.read(folder).problems
  content['tasks']['xcopa.swa.y']['settings']['num_examples'] = 5
  path.write_text(json.dumps(content))
  assert eval_runs.read(folder).problems == [
    'tasks were evaluated with different num_examples: null: xcopa.swa.x, xcopa.swa.z; '
    '5: xcopa.swa.y'
  ]
