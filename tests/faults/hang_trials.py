"""Runs that stop moving, and runs that are only slow: `python -m tests.faults.hang_trials`.

Prints a JSON line: by name of a trial, its exit code, what it said, and whether the same command
then came to the end of a run that nobody disturbed.
"""

import json
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from aya_train import model_answers, partitioning, train_loop, watchdog
from aya_train.checkpoint import manager
from aya_train.evaluation import infer_eval
from tests import test_train_loop
from tests.faults import forks, tiny_runs

STEPS = 6
QUICK = watchdog.WatchdogConfig(3.0, 240.0)  # a busy machine is slow too
NEVER = threading.Event()


def hang(*args: Any, **kwargs: Any) -> None:
  """A call that does not come back."""
  NEVER.wait()


def on_call(number: int, function: Callable[..., Any], do: Callable[[], None]) -> Any:
  """The function, which does something else first when it is called so often."""
  calls = 0

  def called(*args: Any, **kwargs: Any) -> Any:
    nonlocal calls
    calls += 1
    if calls == number:
      do()
    return function(*args, **kwargs)

  return called


def in_a_step() -> None:
  cls: Any = partitioning.Partitioner
  cls.to_global = on_call(5, cls.to_global, hang)


def in_reading_data() -> None:
  from aya_train.data import batching

  before = batching.train_iterator

  def iterator(*args: Any, **kwargs: Any) -> Any:
    found = before(*args, **kwargs)
    cls: Any = type(found)
    cls.__next__ = on_call(5, cls.__next__, hang)
    return found

  batching.train_iterator = iterator  # type: ignore[assignment]


def in_decoding() -> None:
  cls: Any = model_answers.ModelAnswers
  cls.generate = on_call(2, cls.generate, hang)


def in_a_save() -> None:
  cls: Any = manager.CheckpointManager
  cls.save = on_call(2, cls.save, hang)


def slow_save() -> None:
  cls: Any = manager.CheckpointManager
  cls.save = on_call(1, cls.save, lambda: time.sleep(6))


def slow_start() -> None:
  cls: Any = partitioning.Partitioner
  cls.to_global = on_call(1, cls.to_global, lambda: time.sleep(6))


TRIALS: dict[str, tuple[Callable[[], None], watchdog.WatchdogConfig]] = {
  'step': (in_a_step, QUICK),
  'data': (in_reading_data, QUICK),
  'decoding': (in_decoding, QUICK),
  'save': (in_a_save, watchdog.WatchdogConfig(3.0, 60.0)),
  'slow save': (slow_save, QUICK),
  'slow start': (slow_start, QUICK),
}


def trial(
  root: pathlib.Path, model_dir: pathlib.Path, disturb: Any, config: watchdog.WatchdogConfig
) -> None:
  infer = infer_eval.InferEvalConfig(
    tiny_runs.TASK, {'inputs': 16, 'targets': 8}, batch_size=8, num_examples=24
  )
  schedule = train_loop.Schedule(log_period=2, eval_period=100, eval_steps=2)
  disturb()
  tiny_runs.train(
    root, model_dir, STEPS, True, watchdog_cfg=config, infer_eval_cfg=infer, schedule=schedule
  )


def main() -> None:
  test_train_loop.register_task()
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    whole = root / 'whole'
    forks.run(str(root / 'log'), trial, root, whole, lambda: None, QUICK)
    for name, (disturb, config) in TRIALS.items():
      run, log = root / name, root / f'{name}.log'
      code = forks.finish(forks.start(str(log), trial, root, run, disturb, config))
      kept = [p.read_text() for p in (run / watchdog.FOLDER).glob('*')]
      if code:
        forks.run(str(root / 'log'), trial, root, run, lambda: None, QUICK)
      said = log.read_text()
      found[name] = {
        'code': code,
        'said': [line for line in said.splitlines() if 'nothing has moved' in line],
        'stacks': kept,
        'same': tiny_runs.same_state(run, whole),
      }
  print(json.dumps(found))


if __name__ == '__main__':
  main()
