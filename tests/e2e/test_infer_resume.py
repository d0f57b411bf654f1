"""`infer` killed at any moment goes on, and ends with the file of one that was left alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import dataclasses, functools, sys
import jax
jax.config.update('jax_platforms', 'cpu')
from etils import epath
from aya_train import decoding, inference, partitioning
from aya_train.checkpoint import formats
from tests import seqio_tasks, tiny

output, batch_size = sys.argv[1], int(sys.argv[2])
vocabulary = seqio_tasks.VOCABULARY
model = tiny.model(vocab_size=vocabulary.vocab_size)
model = dataclasses.replace(
  model,
  input_vocabulary=vocabulary,
  output_vocabulary=vocabulary,
  decode_fn=functools.partial(decoding.temperature_sample, temperature=0.9, topp=0.8),
)
params = tiny.params(model)
formats.detect = lambda path, base=None: formats.Detected(epath.Path(path), formats.Format.T5X)
reading.check = lambda *args: None
reading.read_for = lambda *args: params
inference.infer(
  model=model,
  checkpoint_path=sys.argv[3],
  partitioner=partitioning.one_device(),
  task_feature_lengths={'inputs': 64, 'targets': 32},
  output_file=output,
  batch_size=batch_size,
  prompts=[f'{i} ' + 'ab' * (i % 25) for i in range(200)],
  num_samples=2,
)
"""


def start(output, batch_size, weights):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  arguments = [sys.executable, '-c', SCRIPT, str(output), str(batch_size), str(weights)]
  return subprocess.Popen(arguments, env=environment, cwd=ROOT)


def lines(path):
  return path.read_bytes().count(b'\n') if path.exists() else 0


@pytest.mark.heavy
def test_a_killed_process_loses_a_batch(tmp_path):
  weights = tmp_path / 'weights'
  weights.write_text('1')
  assert start(tmp_path / 'whole.jsonl', 32, weights).wait(300) == 0
  killed = tmp_path / 'killed.jsonl'
  for number, batch_size in ((signal.SIGKILL, 4), (signal.SIGTERM, 7), (signal.SIGKILL, 5)):
    before = lines(killed)
    process = start(killed, batch_size, weights)
    deadline = time.monotonic() + 200
    while lines(killed) < before + 20 and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.02)
    process.send_signal(number)
    process.wait(60)
    assert before + 20 <= lines(killed) < 400
  assert start(killed, 16, weights).wait(300) == 0
  assert killed.read_bytes() == (tmp_path / 'whole.jsonl').read_bytes()
  found = [json.loads(line) for line in killed.read_text().splitlines()]
  assert [(r['index'], r['sample']) for r in found] == [(i, k) for i in range(200) for k in (0, 1)]
