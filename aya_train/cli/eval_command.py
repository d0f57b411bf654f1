"""`aya-train eval`."""

import argparse

from aya_train.cli import gin_args, host_args

SUMMARY = 'loss and metrics of a checkpoint'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  gin_args.add_arguments(parser, required=True)
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  host_args.join(args)
  gin_args.set_up(args)
  from aya_train import config
  from aya_train.evaluation import evaluation

  config.call(evaluation.evaluate)
