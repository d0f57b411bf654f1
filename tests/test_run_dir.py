import json

import pytest

from aya_train import run_dir

RUN = {'architecture': {'emb_dim': 16}, 'vocabulary': 'v', 'seed': 5, 'first_step': 7}
SAVED = {
  **{k: RUN[k] for k in ('architecture', 'vocabulary')},
  'step': 9,
  'run': {'seed': 5, 'first_step': 7},
}


@pytest.mark.parametrize('content', [None, '', '{"seed": 5', '[]', '{}', '\0\0', '{"seed": 5}'])
def test_a_lost_run_json_is_taken_from_a_checkpoint(tmp_path, content, caplog):
  if content is not None:
    (tmp_path / run_dir.FILE).write_text(content)
  assert run_dir.read_or_recover(tmp_path, SAVED) == RUN
  assert f'{tmp_path / run_dir.FILE} is' in caplog.text
  assert 'taken from the newest checkpoint' in caplog.text
  with pytest.raises(ValueError, match=r'run\.json is .*another MODEL_DIR'):
    run_dir.read_or_recover(tmp_path, {})
  if content in (None, '', '[]'):
    assert run_dir.read_or_recover(tmp_path, None) == {}


def test_a_whole_run_json_is_believed(tmp_path, caplog):
  run_dir.write(tmp_path, RUN)
  assert run_dir.read_or_recover(tmp_path, None) == RUN
  assert run_dir.read_or_recover(tmp_path, SAVED) == RUN
  assert not caplog.records


@pytest.mark.parametrize(
  'change', [{'seed': 4}, {'first_step': 6}, {'architecture': {'emb_dim': 17}}, {'vocabulary': 'w'}]
)
def test_another_digit_than_the_checkpoint_says_is_damage(tmp_path, change, caplog):
  run_dir.write(tmp_path, {**RUN, 'vocabulary_file': 'moved', **change})
  found = run_dir.read_or_recover(tmp_path, {**SAVED, 'vocabulary_file': 'there'})
  assert found == {**RUN, 'vocabulary_file': 'there'}
  assert f'says another {next(iter(change))} than the newest checkpoint' in caplog.text


def test_what_older_versions_wrote_of_a_model_is_no_damage(tmp_path, caplog):
  run_dir.write(tmp_path, RUN)
  newer = {**SAVED, 'architecture': {'emb_dim': 16, 'new': 1}, 'objective': {'loss': 'x'}}
  assert run_dir.read_or_recover(tmp_path, newer) == RUN
  assert run_dir.read_or_recover(tmp_path, {'step': 9}) == RUN
  assert not caplog.records


@pytest.mark.parametrize('content', ['', '[]', '{"seed": 5'])
def test_readers_name_a_damaged_run_json(tmp_path, content):
  (tmp_path / run_dir.FILE).write_text(content)
  with pytest.raises(ValueError, match=r'run\.json is damaged .*writes the file anew'):
    run_dir.read(tmp_path)


def test_a_text_that_changes_keeps_what_it_was(tmp_path):
  path = tmp_path / 'config.gin'
  assert [run_dir.keep_text(path, text) for text in ('a', 'a', 'b', 'b', 'c')] == [
    *(True, False, True, False, True)
  ]
  names = ('config.gin', 'config.1.gin', 'config.2.gin')
  assert [(tmp_path / name).read_text() for name in names] == ['c', 'a', 'b']
  assert len(list(tmp_path.iterdir())) == 3


def test_what_is_the_same_is_not_written_again(tmp_path):
  run_dir.write(tmp_path, RUN)
  before = (tmp_path / run_dir.FILE).stat().st_mtime_ns
  run_dir.write(tmp_path, RUN)
  assert (tmp_path / run_dir.FILE).stat().st_mtime_ns == before
  assert json.loads((tmp_path / run_dir.FILE).read_text()) == RUN


@pytest.mark.parametrize('seed', [-1, 2**31])
def test_a_seed_that_generators_do_not_take_is_refused(tmp_path, seed):
  with pytest.raises(ValueError, match=r'RANDOM_SEED must be in \[0, 2\*\*31\), got'):
    run_dir.check(tmp_path, {}, {}, seed)
