"""Numbers of the command line, refused before work where they have no sense."""

import argparse
import math


def at_least(args: argparse.Namespace, lowest: int, *names: str) -> None:
  """Raises ValueError if one of these arguments is given and lower."""
  for name in names:
    value = getattr(args, name)
    if value is not None and value < lowest:
      raise ValueError(f'--{name} must be at least {lowest}, got {value}')


def finite(args: argparse.Namespace, *names: str, lowest: float | None = None) -> None:
  """Raises ValueError if one of these arguments is given and NaN, infinite, or lower."""
  for name in names:
    value = getattr(args, name)
    if value is None or (math.isfinite(value) and (lowest is None or value >= lowest)):
      continue
    wanted = 'a finite number' if lowest is None else f'a number from {lowest:g} on'
    raise ValueError(f'--{name} must be {wanted}, got {value:g}')


def share(args: argparse.Namespace, *names: str) -> None:
  """Raises ValueError if one of these arguments is no number from 0 to 1."""
  for name in names:
    if not 0 <= (value := getattr(args, name)) <= 1:
      raise ValueError(f'--{name} must be from 0 to 1, got {value:g}')
