"""Runs the same function over many pieces of work: here, in several processes, or through Beam."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class Runner(Protocol):
  """Calls `function` with each tuple of arguments; gives the results, in any order.

  Both are pickled, so the function is one of a module. The pieces of work find what they need in
  a folder that all workers see, and put their output there.
  """

  def __call__(self, function: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[Any]: ...


def here(function: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[Any]:
  """One after the other, in this process."""
  return (function(*args) for args in arguments)


# Kept until the end of the program: a worker takes seconds to import TensorFlow.
_POOLS: dict[int, concurrent.futures.ProcessPoolExecutor] = {}


def processes(number: int) -> Runner:
  """In `number` processes of this machine; `here` for one."""
  if number < 1:
    raise ValueError(f'--workers must be at least 1, got {number}')
  if number == 1:
    return here

  def run(function: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[Any]:
    if len(arguments) < 2:
      yield from here(function, arguments)
      return
    if number not in _POOLS:
      # TensorFlow's threads do not survive a fork.
      context = multiprocessing.get_context('spawn')
      _POOLS[number] = concurrent.futures.ProcessPoolExecutor(
        number, mp_context=context, initializer=_end_with_parent
      )
    with _without_stderr():
      futures = [_POOLS[number].submit(function, *args) for args in arguments]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    except BaseException as error:
      pool = _POOLS.pop(number)
      workers = [] if isinstance(error, Exception) else [*(pool._processes or {}).values()]
      pool.shutdown(wait=False, cancel_futures=True)
      for worker in workers:  # a signal does not wait until they have finished their shards
        worker.terminate()
      raise

  return run


def _end_with_parent() -> None:
  """Ends this worker when the command is killed: the other workers keep its queue open."""
  parent = multiprocessing.parent_process()
  if parent is None:
    raise RuntimeError('only a worker ends with its parent')

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
  """Workers that start in here say nothing: TensorFlow's first lines bury the progress.

  What goes wrong in a worker comes back as an exception.
  """
  kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(sink, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(sink)


def beam(runner: str, options: Sequence[str] = ()) -> Runner:
  """Through Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner ...

  The results stay in the pipeline (a distributed runner has no way back but the file system), so
  None is given once for each piece of work when all of them are done.

  Args:
    runner: name of the Beam runner.
    options: pipeline options, as Beam takes them: '--project=...', '--direct_num_workers=4'.

  Raises:
    ValueError: Beam is not installed.
  """
  try:
    import apache_beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise ValueError(
      "--beam_runner needs Apache Beam: pip install 'aya-train[beam]' (in an environment of its "
      'own; it wants an older protobuf than constraints.txt has)'
    ) from error

  def run(function: Callable[..., Any], arguments: Sequence[tuple]) -> Iterator[Any]:
    flags = [f'--runner={runner}', *options]
    with apache_beam.Pipeline(options=pipeline_options.PipelineOptions(flags)) as pipeline:
      _ = (
        pipeline
        | 'Work' >> apache_beam.Create(list(arguments))
        | 'Spread' >> apache_beam.Reshuffle()
        | function.__name__ >> apache_beam.Map(_call_with, function=function)
      )
    yield from (None for _ in arguments)

  return run


def _call_with(args: tuple, function: Callable[..., Any]) -> None:
  function(*args)
