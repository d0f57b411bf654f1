"""Every command and snippet of the documentation, executed as it is written, in a reader's order."""

import contextlib
import json
import re
import tomllib

import pytest

from aya_train import config, gin_args, main
from tests.docs import commands, sandbox

pytestmark = pytest.mark.xdist_group('docs')

# What is shown and not executed here, with the reason.
NOT_EXECUTED = {
  'python -m t5x.train --gin_file=gin/t5x/sft_smoke.gin': 'T5X is not on PyPI; `pytest -m t5x` does',
  'xpk workload create': 'the name of a command of another program',
}
# Commands that end otherwise than with 0, and what they say then.
ENDS = {
  '--beam_runner': (1, "pip install 'aya-train[beam]'"),
}
SHOWN = commands.everything()
EXECUTED = list({s.text: s for s in SHOWN if s.kind in ('command', 'python', 'file')}.values())


def products(text: str) -> list[str]:
  """Paths that a command makes: names by which later ones need it."""
  found = re.findall(r'''--gin\.(?:MODEL_DIR|EVAL_OUTPUT_DIR|OUTPUT_FILE)='"([^"]+)"'|''', text)
  found += re.findall(r'aya-train convert (?:\S+) (\S+)', text)
  found += re.findall(r'--output (\S+)', text)
  found += re.findall(r'(?<!<)> (\S+)', text)
  return [path for path in found if path]


class Reader:
  """Does what the documentation shows, each thing once, and before it what it needs."""

  def __init__(self, place: sandbox.Sandbox):
    self.place = place
    self._done: dict[str, object] = {}

  def do(self, shown: commands.Shown):
    """How it ended; raises what it raised, again if it is asked for again."""
    if shown.text not in self._done:
      for needed in needs(shown):
        if isinstance(result := self._outcome(needed), BaseException):
          pytest.fail(f'{needed} comes before it, and failed: {result}')
    result = self._outcome(shown)
    if isinstance(result, BaseException):
      raise result
    return result

  def _outcome(self, shown: commands.Shown):
    if shown.text not in self._done:
      try:
        self._done[shown.text] = self._execute(shown)
      except BaseException as error:
        self._done[shown.text] = error
    return self._done[shown.text]

  def _execute(self, shown: commands.Shown):
    if shown.kind == 'file':
      path = self.place.work / shown.file
      path.write_text(shown.text, encoding='utf-8')
      return None
    if shown.kind == 'python':
      return self.place.snippet(shown.text, str(shown))
    self.place.make_weights()
    # The pages on data show other ways to the same sources.
    return self.place.run(shown.text, 'other_cache' if shown.page == 'docs/data.md' else 'cache')


def needs(shown: commands.Shown) -> list[commands.Shown]:
  """What stands before it and makes a path that it names; and the data, which all need."""
  found = []
  for earlier in EXECUTED:
    if earlier is shown:
      break
    if shown.kind == 'file':
      continue
    makes = [earlier.file] if earlier.kind == 'file' else products(earlier.text)
    data = earlier.page == 'README.md' and earlier.text.startswith('aya-train prepare')
    if data or any(re.search(rf'(?<![\w/]){re.escape(p)}(?![\w.])', shown.text) for p in makes):
      found += [shown for shown in needs(earlier) if shown not in found]
      found += [earlier] if earlier not in found else []
  return found


@pytest.fixture(scope='module')
def reader(tmp_path_factory):
  return Reader(sandbox.Sandbox(tmp_path_factory.mktemp('docs')))


@pytest.mark.parametrize('shown', EXECUTED, ids=str)
def test_it_does_what_it_should(reader, shown):
  if reason := NOT_EXECUTED.get(shown.text):
    pytest.skip(reason)
  ended = reader.do(shown)
  if shown.kind == 'command':
    wanted = [end for word, end in ENDS.items() if word in shown.text] or [(0, '')]
    assert (ended.code, ended.output) == (wanted[0][0], ended.output), ended.output[-5000:]
    assert wanted[0][1] in ended.output
    for path in products(shown.text):
      assert (reader.place.work / path.replace('gs://', f'{reader.place.root}/gs/')).exists(), path
