"""Every command and snippet of the documentation, executed as written, in a reader's order."""

import re
import shlex
import sys

import gin
import pytest
import seqio

from aya_train import config, gin_text
from aya_train.cli import gin_args, main
from tests.docs import commands
from tests.docs.reader import EXECUTED, SHOWN, products

# What is shown and not executed here, with the reason.
NOT_EXECUTED = {
  'python -m t5x.train --gin_file=gin/t5x/sft_smoke.gin': 'T5X is not on PyPI; `-m t5x` does',
  'ct2-transformers-converter --model facebook/nllb-200-3.3B --quantization float16 '
  '--copy_files tokenizer.json --output_dir nllb-200-3.3B': 'the weights are on the hub',
  'aya-train translate aya_dataset --to yor,hau,tha --model nllb-200-3.3B --device cuda '
  '--device_index 0,1,2,3 --policy non-commercial --output translated_aya': 'so are these',
  'xpk workload create': 'the name of a command of another program',
  'python examples/finetune_csv.py examples/days.csv runs/days': 'tests/examples does',
  'python -m tests.faults.fuzz --inputs 1000000': 'minutes; tests/faults/test_fuzz.py does',
  'bash launch/preference_smoke.sh': 'minutes; tests/e2e/test_preference_smoke.py does',
  'bash launch/preference_smoke.sh --fresh': 'minutes; tests/e2e/test_preference_smoke.py does',
  'bash launch/aya_small.sh': 'minutes; tests/e2e/test_aya_small.py does',
  'bash launch/aya_small.sh --fresh': 'minutes; tests/e2e/test_aya_small.py does',
}
# Compiled, or processes of their own, each.
HEAVY = ('recipes/reward.gin', 'recipes/rloo.gin', 'embed_smoke.sh --fresh', '-m benchmarks.')
# Commands that end otherwise than with 0, and what they say then.
ENDS = {
  '--beam_runner': (1, "pip install 'aya-train[beam]'"),
}


def parameter(shown):
  """What only the head of a benchmark shows costs processes of their own."""
  marks = (
    [pytest.mark.heavy]
    if shown.page.startswith('benchmarks/') or any(recipe in shown.text for recipe in HEAVY)
    else []
  )
  return pytest.param(shown, marks=marks, id=str(shown))


@pytest.mark.parametrize('shown', [parameter(shown) for shown in EXECUTED])
def test_it_does_what_it_should(reader, shown):
  if reason := NOT_EXECUTED.get(shown.text):
    pytest.skip(reason)
  ended = reader.do(shown)
  if shown.kind != 'command':
    return
  code, said = next((end for word, end in ENDS.items() if word in shown.text), (0, ''))
  assert ended.code == code, ended.output[-5000:]
  assert said in ended.output
  for path in products(reader.place.with_stand_ins(shown.text)):
    assert (reader.place.work / path).exists(), path


@pytest.mark.parametrize('name', sorted({s.text for s in SHOWN if s.kind == 'name'}))
def test_a_command_that_is_named_exists(reader, name):
  assert reader.place.run(f'{name} --help').code == 0


def arguments_of(shown: commands.Shown) -> list[str]:
  """What aya-train gets, at once or on the hosts of a pod; [] if it is another program."""
  words = shlex.split(shown.text.replace('\\\n', ' '), comments=True)
  while words and re.match(r'\w+=', words[0]):
    words = words[1:]
  if words[0] == 'aya-train':
    return words[1:]
  return words[words.index('--') + 1 :] if '--' in words else []


WITH_GIN = [s for s in EXECUTED if s.text not in NOT_EXECUTED and '--gin_file' in s.text]


@pytest.mark.parametrize('shown', WITH_GIN, ids=str)
def test_its_macros_are_those_of_the_real_files(shown, tmp_path, monkeypatch):
  """The gin files of the sandbox define more macros than a recipe may."""
  monkeypatch.chdir(tmp_path)
  for file in SHOWN:
    if file.kind == 'file':
      (tmp_path / file.file).write_text(file.text, encoding='utf-8')
  monkeypatch.syspath_prepend(tmp_path)  # gin files of a page may import its modules
  tasks = dict(seqio.TaskRegistry._REGISTRY)
  args = main.parser().parse_args(gin_args.rewrite_gin_args(arguments_of(shown)))
  runs = args.command in ('train', 'eval', 'infer')
  try:
    with gin.config.interactive_mode():
      config.parse(args.gin_file, args.gin_bindings, require_all=runs)
    macros = gin_text.macros(gin.config_str())
    named = re.findall(r'--gin\.([A-Z][A-Z0-9_]+)=', shown.text)
    assert set(named) <= set(macros)
  finally:
    gin.clear_config()
    seqio.TaskRegistry._REGISTRY.clear()
    seqio.TaskRegistry._REGISTRY.update(tasks)
    for name in {file.file.removesuffix('.py') for file in SHOWN if file.kind == 'file'}:
      sys.modules.pop(name, None)


def test_the_scripts_do_what_is_said_of_them(reader):
  smoke, tests = (s for s in EXECUTED if s.text in ('bash launch/smoke.sh', 'bash launch/test.sh'))
  reader.do(smoke)
  for path in ('checkpoints/4/params', 'hf/config.json', 'report.html'):
    assert (reader.place.work / 'runs/smoke' / path).exists()
  reader.place.run(f'{tests.text} -k losses')
  asked = [' '.join(words) for words in reader.place.asked]
  steps = ['ruff check .', 'ruff format --check .', 'mypy', 'lint-imports', 'python -m pytest']
  assert [next(a for a in asked if a.startswith(step)) for step in steps] == asked[-5:]
  assert asked[-1].endswith(' -k losses')


def test_nothing_is_shown_in_a_language_that_is_not_executed():
  kinds = {s.kind: s for s in SHOWN}
  assert set(kinds) <= {'command', 'name', 'python', 'file', 'listing'}, kinds


def test_what_is_not_executed_is_still_shown():
  shown = {s.text for s in SHOWN}
  assert set(NOT_EXECUTED) <= shown


def test_a_listing_has_no_commands():
  for listing in (s for s in SHOWN if s.kind == 'listing'):
    # A name alone, or with a remark after a gap, is none.
    command = re.compile(rf'\s*{commands.BEGINS.pattern} \S')
    found = [line for line in listing.text.splitlines() if command.match(line)]
    assert not found, f'{listing}: a command in a block without a language is not executed'
