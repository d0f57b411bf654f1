"""'~' is the home folder in every path of the command line, also where no shell has seen it."""

import argparse
import re

import pytest

from aya_train.cli import main, path_args

SPEAKS_OF_PATHS = re.compile(
  r'\b(files?|folders?|PATH|MODEL_DIR|DIR|tables?|corpus|checkpoint)\b|\.toml'
)
NO_PATHS = {
  *('--task', '--prompt_name', '--query_prompt', '--passage_prompt', '--model_name', '--datasets'),
  *('--id_column', '--title_column', '--max_shard_size', '--rating', '--columns'),
}
TAKEN_APART = {'--gin_search_paths', '--scorer', 'what'}  # their parts are expanded


def options():
  """(command, option) of all that take a text."""
  (commands,) = (a for a in main.parser()._actions if isinstance(a, argparse._SubParsersAction))
  for command, parser in commands.choices.items():
    for action in parser._actions:
      if action.nargs != 0 and not action.choices:
        yield command, action


def test_every_option_that_takes_a_path_knows_the_home_folder(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  unaware, aware = [], set()
  for command, action in options():
    name = action.option_strings[0] if action.option_strings else action.dest
    try:
      taken = action.type('~/x') if action.type else '~/x'
    except (ValueError, argparse.ArgumentTypeError):
      continue  # a number
    if taken == '/home/ann/x':
      aware.add((command, name))
    elif SPEAKS_OF_PATHS.search(f'{action.metavar} {action.help}'):
      unaware.append((command, name))
  assert {name for _, name in unaware} <= NO_PATHS | TAKEN_APART, unaware
  assert {
    *(('train', '--gin_file'), ('convert', 'dst'), ('replay', 'model_dir')),
    *(('judge', '--rubric'), ('judge', '--protocol'), ('eval-embeddings', '--bitext')),
  } <= aware


@pytest.mark.parametrize(
  ('text', 'path'),
  [
    ('~/a', '/home/ann/a'),
    ('X=~/a', 'X=/home/ann/a'),
    ('X=a=~/b', 'X=a=~/b'),
    ('~/a=b', '/home/ann/a=b'),
    ('lr=1', 'lr=1'),
    ('a~b', 'a~b'),
    ('gs://a/~b', 'gs://a/~b'),
  ],
)
def test_the_home_folder_behind_a_name(text, path, monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  assert path_args.named(text) == path


@pytest.mark.parametrize(
  'command',
  [
    'replay ~/none 3',
    'report ~/none',
    'report eval X=~/none',
    'report preference ~/none.jsonl',
    'eval-embeddings ~/none --sts T=~/none --output out',
    'judge ~/none.jsonl --rubric ~/none.toml --output out --model m',
    'judge ~/none.jsonl --scorer hf:~/none --output out',
  ],
)
def test_commands_name_the_path_that_they_looked_at(command, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('HOME', str(tmp_path / 'ann'))
  monkeypatch.chdir(tmp_path)
  assert main.main(command.split()) == 1
  said = capsys.readouterr().err
  assert f'{tmp_path}/ann/none' in said and '~' not in said
  assert {path.name for path in tmp_path.iterdir()} <= {'ann'}  # where libraries have caches
