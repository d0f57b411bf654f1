"""A trace of some steps, and the share of time spent waiting for data."""

import json
import logging
import time

import jax.numpy as jnp
import pytest

from aya_train import metric_writer, step_trace, training_progress


@pytest.mark.parametrize('steps', [(10, 15), [1, 1], None])
def test_two_steps_in_order_are_taken(steps):
  assert step_trace.check(steps) == (None if steps is None else tuple(steps))


@pytest.mark.parametrize('steps', [3, (0, 2), (5, 4), (1, 2, 3), (True, 2), ('1', '2'), (1.0, 2.0)])
def test_anything_else_is_refused_by_name(steps):
  with pytest.raises(ValueError, match='PROFILE_STEPS must be None, or the first and the last'):
    step_trace.check(steps)


def test_the_steps_asked_for_are_traced_and_no_others(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  trace = step_trace.StepTrace((2, 3), str(tmp_path))
  found = []
  for _ in range(4):
    trace.begin()
    trace.end(jnp.ones(3) + 1)
    found.append([*tmp_path.rglob('*.xplane.pb')] != [])
  assert found == [False, False, True, True]
  assert 'steps 2 to 3 took' in caplog.text and not trace.missed
  trace.close()
  assert len([*tmp_path.rglob('*.xplane.pb')]) == 1


def test_a_run_that_ends_within_them_keeps_what_was_traced(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  trace = step_trace.StepTrace((1, 9), str(tmp_path))
  trace.begin()
  trace.end(jnp.ones(3))
  trace.close(jnp.ones(3))
  assert 'steps 1 to 1 took' in caplog.text and [*tmp_path.rglob('*.xplane.pb')]
  short = step_trace.StepTrace((5, 9), str(tmp_path))
  short.begin()
  assert short.missed


def test_time_spent_waiting_for_data_is_a_figure_and_said_where_it_is_much(tmp_path, caplog):
  class Model:
    def train_summary(self, sums, seconds):
      return {'loss': sums['loss']}

    def train_line(self, summary):
      return f'loss {summary["loss"]}'

  caplog.set_level(logging.INFO)
  writer = metric_writer.Writer(tmp_path)
  progress = training_progress.TrainingProgress(Model(), writer, 0, 2)
  with progress.waiting_for_data():
    time.sleep(0.05)
  progress.report([{'loss': 1.0}], 1)
  progress.go_on()
  time.sleep(0.05)
  progress.report([{'loss': 1.0}], 2)
  written = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  waited = [line['data_wait_fraction'] for line in written]
  assert 0.5 < waited[0] <= 1.0 and waited[1] == 0.0
  assert caplog.text.count('of the time waiting for data') == 1
