"""Paths of the command line that stand behind a name."""

import os


def named(text: str) -> str:
  """'NAME=PATH' or 'PATH' with the home folder for a '~' that begins the path, as shells do it."""
  name, equals, path = text.partition('=')
  if path.startswith('~') and not text.startswith('~'):
    return name + equals + os.path.expanduser(path)
  return os.path.expanduser(text)
