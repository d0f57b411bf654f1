"""Several hosts on a command line: how the processes of one run find each other."""

import argparse

from aya_train import hosts, peers
from aya_train.cli import number_args


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds `--multihost`, `--coordinator_address` and what belongs to them."""
  group = parser.add_argument_group('several hosts', 'start the same command on each of them')
  group.add_argument(
    '--multihost',
    action='store_true',
    help='find the other hosts through the environment (TPU, Slurm)',
  )
  group.add_argument('--coordinator_address', help='host:port of process 0, where nothing tells it')
  group.add_argument('--num_processes', type=int)
  group.add_argument('--process_id', type=int)
  group.add_argument(
    '--barrier_timeout',
    type=_seconds,
    help='seconds that a host may stand still while others wait for it (1800)',
  )


def _seconds(text: str) -> float:
  seconds = float(text)
  if not seconds > 0:
    raise argparse.ArgumentTypeError(f'must be above 0, got {text}')
  return seconds


def join(args: argparse.Namespace) -> None:
  """Joins the other hosts if the arguments ask for it; `hosts.JoinError` if they do not come."""
  if args.barrier_timeout is not None:
    peers.BARRIER_TIMEOUT = args.barrier_timeout
  number_args.at_least(args, 1, 'num_processes')
  number_args.at_least(args, 0, 'process_id')
  if args.multihost or args.coordinator_address:
    hosts.join(args.coordinator_address, args.num_processes, args.process_id)
