"""A reader, who does what the documentation shows, each thing once and before it what it needs."""

import re

import pytest

from tests.docs import commands, sandbox

SHOWN = commands.everything()
# Each text once, where it is shown first.
_FIRST: dict[str, commands.Shown] = {}
for _shown in SHOWN:
  if _shown.kind in ('command', 'python', 'file'):
    _FIRST.setdefault(_shown.text, _shown)
EXECUTED = list(_FIRST.values())


def products(text: str) -> list[str]:
  """Paths that a command makes: names by which later ones need it."""
  found = re.findall(r"""--gin\.(?:MODEL_DIR|EVAL_OUTPUT_DIR|OUTPUT_FILE)='"([^"]+)"'|""", text)
  found += re.findall(r'aya-train convert (?:\S+) (\S+)', text)
  found += re.findall(r'--output (\S+)', text)
  found += re.findall(r'(?<!<)> (\S+)', text)
  return [path for path in found if path] if not text.startswith('launch/') else []


class Reader:
  """Does what is shown, in a sandbox."""

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
      for folder in (self.place.work, self.place.root / 'compile'):
        (folder / shown.file).write_text(shown.text, encoding='utf-8')
      return None
    if shown.kind == 'python':
      return self.place.snippet(shown.text, str(shown))
    self.place.make_weights()
    # Another way to a source that is built already.
    other = shown.page == 'docs/data.md' and '--data_dir' in shown.text
    return self.place.run(shown.text, 'other_cache' if other else 'cache')


def needs(shown: commands.Shown) -> list[commands.Shown]:
  """What comes before it: the data, the files of its page, what makes a path that it names."""
  found: list[commands.Shown] = []
  for earlier in EXECUTED[: EXECUTED.index(shown)]:
    data = earlier.page == 'README.md' and earlier.text.startswith('aya-train prepare')
    file = earlier.page == shown.page and re.match('(mkdir|printf|cat) ', earlier.text)
    named = any(
      re.search(rf'(?<![\w/]){re.escape(p)}(?![\w.])', shown.text) for p in products(earlier.text)
    )
    if data or file or named:
      found += needs(earlier) + [earlier]
  found += [s for s in EXECUTED if s.kind == 'file' and s.page == shown.page and s is not shown]
  return list(dict.fromkeys(found))
