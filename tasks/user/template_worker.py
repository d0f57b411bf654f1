"""Runs untrusted templates in a process that can be stopped."""

import json
import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.tasks.user import template_language

MEGABYTES = 512
_SILENT_SECONDS = 120.0  # by the wall: the process has a clock of its own, and ends before
_NO_START = 'compiling the templates was stopped: it ran too long or took too much memory'


class RowTemplateError(template_language.TemplateProblemError):
  """A template fails on a row.

  Attributes:
    template: its name.
    number: of the row, from 0.
    detail: what was raised.
  """

  def __init__(self, template: str, number: int, detail: str):
    super().__init__(f'template {template!r}, row {number + 1}: {detail}')
    self.template, self.number, self.detail = template, number, detail


class Worker:
  """Templates in a process of their own; a context manager.

  The process has no loader for other templates, `MEGABYTES` of address space, no right to write a
  byte to a file, an empty environment, and a clock of its processor's time: the alarm of
  `template_language` ends a row after a second, and if compiled code does not hear it, the system
  ends the process a second or two later.

  Attributes:
    columns, reads: of each template, see `template_language.Template`.
    blank: of each template that has rendered rows, its `blank_fields`.
  """

  def __init__(self, templates: Sequence[Mapping[str, Any]]):
    """Starts the process.

    Args:
      templates: arguments of `template_language.Template`, of each.

    Raises:
      template_language.TemplateProblemError: a template cannot be compiled.
    """
    self._templates = list(templates)
    self.columns: list[list[str]] = []
    self.reads: list[list[str]] = []
    self.blank: dict[int, dict[str, list[str]]] = {}
    self._process: subprocess.Popen[bytes] | None = None
    self._buffer = b''
    self._start()

  def __enter__(self) -> 'Worker':
    return self

  def __exit__(self, *unused: Any) -> None:
    self._stop()

  def render(
    self, template: int, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]
  ) -> list[tuple[str, str] | None]:
    """Inputs and targets of rows; None where the template gives none.

    Args:
      template: index of the template.
      rows: JSON values; columns that the template does not read are not looked at.
      numbers: of the rows from 0, for random picks and messages.

    Raises:
      RowTemplateError: with the template's name and the row's number.
    """
    found = self.render_with_options(template, rows, numbers)
    return [None if result is None else result[:2] for result in found]

  def render_with_options(
    self, template: int, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]
  ) -> list[tuple[str, str, list[str]] | None]:
    """`render`, with each row's `answer_choices`; [] where the template has none."""
    reads = {*self.reads[template]}
    told = [{name: row[name] for name in row if name.replace('-', '_') in reads} for row in rows]
    found = self._ask({'template': template, 'rows': told, 'numbers': list(numbers)})
    if found is None:
      if len(rows) > 1:  # one by one, to name the row that does it
        self._start()
        pairs = zip(numbers, rows, strict=True)
        return [self.render_with_options(template, [row], [n])[0] for n, row in pairs]
      self._start()
      raise self._problem(template, numbers[0], 'stopped: it ran too long or took too much memory')
    self.blank[template] = found['blank']
    found = found['results']
    for number, result in zip(numbers, found, strict=False):
      if isinstance(result, dict):
        raise self._problem(template, number, result['problem'])
    return [None if result is None else (result[0], result[1], result[2]) for result in found]

  def _problem(self, template: int, number: int, detail: str) -> RowTemplateError:
    return RowTemplateError(self._templates[template]['name'], number, detail)

  def _start(self) -> None:
    self._stop()
    # Run as a file, isolated: the package around it would import TensorFlow.
    program = pathlib.Path(template_language.__file__)
    self._process = subprocess.Popen(
      [sys.executable, '-I', str(program)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={},
      cwd='/',
      close_fds=True,
    )
    self._buffer = b''
    answer = self._ask({'templates': self._templates, 'megabytes': MEGABYTES})
    if answer is None or 'problem' in answer:
      self._stop()
      problem = _NO_START if answer is None else answer['problem']
      raise template_language.TemplateProblemError(problem)
    self.columns, self.reads = map(list, zip(*answer['ready'], strict=True))

  def _stop(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.communicate()
      self._process = None

  def _ask(self, request: Any) -> Any:
    """The answer; None if the process died or was silent for too long."""
    assert self._process is not None
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(request).encode() + b'\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      return None
    line = self._read_line(time.monotonic() + _SILENT_SECONDS)
    return None if line is None else json.loads(line)

  def _read_line(self, deadline: float) -> bytes | None:
    assert self._process is not None
    assert self._process.stdout is not None
    descriptor = self._process.stdout.fileno()
    while b'\n' not in self._buffer:
      ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
      block = os.read(descriptor, 1 << 20) if ready else b''
      if not block:
        return None
      self._buffer += block
    line, _, self._buffer = self._buffer.partition(b'\n')
    return line
