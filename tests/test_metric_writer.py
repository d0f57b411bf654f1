import json

import pytest

from aya_train import lease, metric_writer


def lines(folder, *records):
  (folder / metric_writer.FILE).write_text(
    ''.join(json.dumps({'kind': kind, 'step': step, 'loss': x}) + '\n' for kind, step, x in records)
  )


def test_steps_that_a_restart_repeats_count_once(tmp_path):
  lines(
    tmp_path,
    *(('train', 50, 1), ('train', 100, 2), ('train_eval', 100, 3), ('train', 150, 4)),
    *(('train_eval', 150, 5),),
    *(('train', 125, 6), ('train', 150, 7)),  # from the checkpoint of step 100, with another period
  )
  found = [(r['kind'], r['step'], r['loss']) for r in metric_writer.read(tmp_path)]
  assert [r for r in found if r[0] == 'train'] == [
    *(('train', 50, 1), ('train', 100, 2), ('train', 125, 6), ('train', 150, 7))
  ]
  assert [r[1:] for r in found if r[0] == 'train_eval'] == [(100, 3), (150, 5)]
  assert [r[1] for r in found] == sorted(r[1] for r in found)


def test_a_torn_line_is_mended_by_the_next_figure(tmp_path, caplog):
  lines(tmp_path, ('train', 1, 1.0))
  path = tmp_path / metric_writer.FILE
  with path.open('a') as file:
    file.write('{"step": 2, "kind": "tra')
  before = path.read_bytes()
  assert [r['step'] for r in metric_writer.read(tmp_path)] == [1]
  assert 'metrics.jsonl: line 2 is torn' in caplog.text
  writer = metric_writer.Writer(tmp_path)
  writer.flush()
  assert path.read_bytes() == before  # whoever measures nothing changes nothing
  assert not list(tmp_path.glob('events*'))
  writer.write(2, 'train', {'loss': 0.5})
  assert [json.loads(x)['step'] for x in path.read_text().splitlines()] == [1, 2]


def test_another_digit_is_no_figure(tmp_path, caplog):
  writer = metric_writer.Writer(tmp_path)
  for step, loss in enumerate((0.25, 0.75, 0.5), 1):
    writer.write(step, 'train', {'loss': loss})
  path = tmp_path / metric_writer.FILE
  path.write_text(path.read_text().replace('0.75', '0.15'))
  found = metric_writer.read(tmp_path)
  assert [(r['step'], r['loss']) for r in found] == [(1, 0.25), (3, 0.5)]
  assert 'metrics.jsonl: line 2 is torn, changed or no record of ours' in caplog.text
  assert found[0].keys() == {'step', 'kind', 'loss'}


def test_lines_of_versions_without_digests_are_read(tmp_path):
  (tmp_path / metric_writer.FILE).write_text('{"step": 1, "kind": "train", "loss": 0.5}\n')
  assert metric_writer.read(tmp_path) == [{'step': 1, 'kind': 'train', 'loss': 0.5}]


def test_nothing_is_written_once_the_folder_is_lost(tmp_path):
  def check():
    raise lease.LostError('lost')

  with pytest.raises(lease.LostError):
    metric_writer.Writer(tmp_path, check).write(1, 'train', {'loss': 1.0})
  assert not list(tmp_path.iterdir())
