"""T5X's way of writing gin bindings on a command line; imports nothing, so that usage is quick."""

from collections.abc import Sequence


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
  """Turns T5X's `--gin.NAME=VALUE` into `--gin_bindings=NAME = VALUE`.

  Raises:
    ValueError: no `=` in such an argument.
  """
  rewritten = []
  for arg in args:
    if arg.startswith('--gin.'):
      name, equals, value = arg.removeprefix('--gin.').partition('=')
      if not equals:
        raise ValueError(f'{arg}: expected --gin.NAME=VALUE, got no "="')
      arg = f'--gin_bindings={name.strip()} = {value}'
    rewritten.append(arg)
  return rewritten
