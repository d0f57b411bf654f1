"""The best checkpoint by a metric: which it is, that it stays, what is no metric."""

import dataclasses
import json

import numpy as np
import pytest

from aya_train import preflight
from aya_train.checkpoint import best_step, manager

NAME = 'infer_eval/xnli.swa/accuracy'


@dataclasses.dataclass
class Info:
  step: int


def write(folder, values, kind='infer_eval/xnli.swa', name='accuracy'):
  lines = [json.dumps({'step': s, 'kind': kind, name: v}) for s, v in values]
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('\n'.join(lines) + '\n')


def kept(folder, steps, keep=1, mode='max'):
  policy = best_step.NewestAndBest(folder, keep, best_step.Monitored(NAME, mode))
  flags = policy.should_preserve([Info(s) for s in steps], context=None)
  return [s for s, flag in zip(steps, flags, strict=True) if flag]


def test_the_newest_and_the_best_are_kept(tmp_path):
  assert kept(tmp_path, [10, 20]) == [20]
  write(tmp_path, [(10, 50.0), (20, 70.0), (30, 60.0)])
  write(tmp_path, [(20, 1.0)], kind='infer_eval/xnli')
  assert kept(tmp_path, [10, 20, 30, 40]) == [20, 40]
  assert kept(tmp_path, [10, 20, 30, 40], mode='min') == [10, 40]
  assert kept(tmp_path, [10, 30, 40], keep=2) == [30, 40]
  assert kept(tmp_path, [10, 20], keep=None) == [10, 20]


def test_of_equal_ones_the_last_is_the_best_and_nan_is_none(tmp_path):
  write(tmp_path, [(10, 70.0), (20, 70.0), (30, 'NaN')])
  assert kept(tmp_path, [10, 20, 30, 40]) == [20, 40]


def test_the_best_is_named_beside_the_checkpoints(tmp_path, caplog):
  caplog.set_level('INFO')
  monitored = best_step.Monitored(NAME)
  best_step.note(tmp_path, monitored, [10])
  assert not (tmp_path / best_step.FILE).exists()
  write(tmp_path, [(10, 50.0), (20, 40.0)])
  for _ in range(2):
    best_step.note(tmp_path, monitored, [10, 20])
  assert json.loads((tmp_path / best_step.FILE).read_text())['step'] == 10
  assert caplog.text.count('the best checkpoint is that of step 10') == 1


def test_orbax_keeps_what_the_policy_says(tmp_path):
  config = manager.CheckpointConfig(period=1, keep=1, use_async=False, metric_name_to_monitor=NAME)
  from aya_train import train_state

  with_steps = manager.CheckpointManager(tmp_path, config, {'architecture': {}})
  for step, value in ((1, 30.0), (2, 90.0), (3, 10.0), (4, 20.0)):
    state = train_state.TrainState(
      step=np.int32(step), params={'x': np.ones(2, np.float32)}, opt_state={}, rng=np.uint32(0)
    )
    with_steps.save(state, None)
    write(tmp_path, [(step, value)])
    with_steps.note_best()
  with_steps.close()
  found = sorted(int(p.name) for p in (tmp_path / manager.FOLDER).iterdir() if p.name.isdigit())
  assert found == [2, 4]


class Decoder:
  tasks = ('xnli.swa',)


@pytest.mark.parametrize(
  ('name', 'infer_period', 'message'),
  [
    ('infer_eval/xnli/accuracy', 2, r"this run measures \['infer_eval/xnli.swa/METRIC'"),
    ('train_eval/loss', 2, 'this run measures'),
    (NAME, None, r'INFER_EVAL_PERIOD None\) and saved \(CHECKPOINT_PERIOD 4\)'),
    (NAME, 30, 'no step before the last is both measured'),
  ],
)
def test_a_metric_that_is_never_measured_at_a_saved_step_is_refused(name, infer_period, message):
  config = manager.CheckpointConfig(period=4, keep=1, metric_name_to_monitor=name)
  data = preflight.Data(None, None)
  with pytest.raises(ValueError, match=message):
    preflight.check_monitored(config, 1, infer_period, data, Decoder, 40)
  good = dataclasses.replace(config, metric_name_to_monitor=NAME)
  preflight.check_monitored(good, 1, 10, data, Decoder, 40)


def test_a_mode_is_max_or_min():
  with pytest.raises(ValueError, match='CHECKPOINT_METRIC_MODE must be one of'):
    manager.CheckpointConfig(metric_mode='best')
