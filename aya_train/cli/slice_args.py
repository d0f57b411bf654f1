"""A TPU slice on a command line, compiled for without one."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from aya_train.cli import gin_args

if TYPE_CHECKING:
  from aya_train.tpu import topologies


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds gin's arguments and `--topology`."""
  gin_args.add_arguments(parser, required=True)
  parser.add_argument(
    '--topology', required=True, help='public name of a slice: v4-128, v5e-16 ...'
  )


def set_up(args: argparse.Namespace) -> topologies.Slice:
  """Parses gin for compiling on the CPU, without importing tasks or looking for data.

  Raises:
    ValueError: an unknown slice, or libtpu is missing; see also `config.parse`.
  """
  from aya_train import config
  from aya_train.tpu import topologies

  slice_ = topologies.get(args.topology)
  topologies.require_libtpu()
  os.environ['JAX_PLATFORMS'] = 'cpu'
  gin_args.parse(args, require_all=False)
  config.configure_vocabulary()
  return slice_
