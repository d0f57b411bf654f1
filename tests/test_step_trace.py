"""A trace of some steps, and the share of time spent waiting for data."""

import json
import logging
import os
import subprocess
import sys
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


# In a process of its own: where other tests have loaded libtpu nothing is traced.
_TRACED = """
import json, logging, pathlib, sys
import jax.numpy as jnp
from aya_train import step_trace
logging.basicConfig(level=logging.INFO)
folder = pathlib.Path(sys.argv[1])
files = lambda name: len([*(folder / name).rglob('*.xplane.pb')])
trace, found = step_trace.StepTrace((2, 3), str(folder / 'some')), []
for _ in range(4):
  trace.begin()
  trace.end(jnp.ones(3) + 1)
  found.append(files('some'))
trace.close()
cut = step_trace.StepTrace((1, 9), str(folder / 'cut'))
cut.begin()
cut.end(jnp.ones(3))
cut.close(jnp.ones(3))
short = step_trace.StepTrace((5, 9), str(folder / 'short'))
short.begin()
print(json.dumps([found, trace.missed, files('cut'), cut.missed, files('short'), short.missed]))
"""


def test_the_steps_asked_for_are_traced_and_a_run_that_ends_within_them_keeps_what_there_is(
  tmp_path,
):
  done = subprocess.run(
    [sys.executable, '-c', _TRACED, str(tmp_path)],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  assert json.loads(done.stdout) == [[0, 0, 1, 1], False, 1, False, 0, True]
  assert 'steps 2 to 3 took' in done.stderr and 'steps 1 to 1 took' in done.stderr


def test_a_tracer_that_would_end_the_process_is_left_alone(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(step_trace, '_ends_the_process', lambda: True)
  trace = step_trace.StepTrace((1, 1), str(tmp_path))
  trace.begin()
  trace.end(jnp.ones(3))
  assert 'no trace: libtpu is loaded' in caplog.text and not [*tmp_path.iterdir()]


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
