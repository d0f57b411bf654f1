"""One input for one parser, and the law that it must keep."""

import contextlib
import dataclasses
import pathlib
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SECONDS = 5.0  # an input of at most 100 kB takes no longer
MEGABYTES = 512  # nor does it need more than this
LONGEST_MESSAGE = 20_000  # characters, beside the input itself


@dataclasses.dataclass(frozen=True)
class Parser:
  """What reads bytes of others.

  Attributes:
    name: for the report.
    share: of the inputs, in thousandths; what is slow has few.
    samples: makes valid inputs.
    run: parses an input; a folder is there for it.
    errors: what it may raise.
    file: name of the file that a message must name, '' if it reads no file.
  """

  name: str
  share: float
  samples: Callable[[], Sequence[bytes]]
  run: Callable[[bytes, pathlib.Path], Any]
  errors: tuple[type[BaseException], ...] = (ValueError, OSError)
  file: str = ''


class HangError(BaseException):
  """An input took too long; no parser may catch it."""


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
  def late(*unused: Any) -> None:
    raise HangError

  before = signal.signal(signal.SIGALRM, late)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def fault(parser: Parser, data: bytes, folder: pathlib.Path) -> str:
  """How a parser breaks the law on an input, '' if it keeps it.

  The law: it returns, or raises an error of the documented types with a message that names the
  file; in time, and without much memory.
  """
  before = _peak()
  problem = ''
  try:
    with _deadline(SECONDS):
      parser.run(data, folder)
  except HangError:
    problem = f'hang: over {SECONDS:g} s'
  except parser.errors as error:
    problem = _bad_message(parser, str(error), len(data))
  except Exception as error:
    problem = f'{type(error).__name__}: {str(error)[:200]}{_where(error)}'
  if not problem and (grown := _peak() - before) > MEGABYTES:
    problem = f'memory: {grown:.0f} MB'
  return problem


def _bad_message(parser: Parser, message: str, size: int) -> str:
  if not message.strip():
    return 'an error without a message'
  if len(message) > LONGEST_MESSAGE + 4 * size:
    return f'a message of {len(message):,} characters: {message[:100]}'
  if parser.file and parser.file not in message:
    return f'a message that does not name the file: {message[:200]}'
  return ''


def _where(error: BaseException) -> str:
  trace = error.__traceback__
  last = ''
  while trace is not None:
    name = trace.tb_frame.f_code.co_filename
    if '/aya_train/' in name or '/tasks/' in name:
      last = f' at {pathlib.Path(name).name}:{trace.tb_lineno}'
    trace = trace.tb_next
  return last


def _peak() -> float:
  """The most memory that this process has had, in MB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (1 << 20 if sys.platform == 'darwin' else 1 << 10)
