"""What `infer` takes beside gin is gin, before what the command line binds itself."""

import gin
import pytest

from aya_train import config
from aya_train.cli import gin_args, infer_command, main

FILES = ['--gin_file=models/mt5_tiny.gin', '--gin_file=recipes/infer.gin']


@pytest.fixture(autouse=True)
def cleared():
  yield
  gin.clear_config()


def macros(*arguments):
  args = main.parser().parse_args(gin_args.rewrite_gin_args(['infer', *FILES, *arguments]))
  config.parse(args.gin_file, args.gin_bindings, require_all=False)
  return config.macro


def test_arguments_are_macros():
  macro = macros(
    *('--checkpoint', 'runs/a', '--prompt', 'it\'s "so"\n%x', '--prompt', 'ab', '--overwrite'),
    *('--num_samples', '3', '--output_file', '-'),
  )
  assert macro('CHECKPOINT_PATH') == 'runs/a'
  assert macro('PROMPTS') == ('it\'s "so"\n%x', 'ab')
  assert (macro('NUM_SAMPLES'), macro('OUTPUT_FILE'), macro('OVERWRITE')) == (3, '-', True)
  assert macro('PROMPTS_FILE') is None and macro('DECODE_AS_CHECKPOINT') is False


@pytest.mark.parametrize('order', [1, -1])
def test_macros_of_the_command_line_win(order):
  arguments = [
    '--gin.NUM_SAMPLES=2',
    '--num_samples=3',
    '--decoding=aya_sampling',
    '--gin.TOP_P=0.5',
  ]
  macro = macros(*arguments[::order])
  assert (macro('NUM_SAMPLES'), macro('TOP_P'), macro('TEMPERATURE')) == (2, 0.5, 0.9)


@pytest.mark.parametrize('name', infer_command.DECODING)
def test_every_named_way_is_a_file(name):
  macro = macros(f'--decoding={name}')
  assert callable(macro('DECODE_FN'))
  assert (config.CONFIGS / f'decoding/{name}.gin').exists()


def test_the_paper_s_sampling():
  macro = macros('--decoding=aya_sampling')
  assert [macro(n) for n in ('TEMPERATURE', 'TOP_P', 'TOP_K', 'MAX_NEW_TOKENS')] == [
    *(0.9, 0.8, 0, 256)
  ]


def test_the_folder_s_own_way():
  assert macros('--decoding=checkpoint')('DECODE_AS_CHECKPOINT') is True
  named = {path.stem for path in (config.CONFIGS / 'decoding').glob('*.gin')}
  assert named == {*infer_command.DECODING}
