"""`aya-train train`."""

import argparse

from aya_train.cli import gin_args, host_args

SUMMARY = 'fine-tune as the gin files say'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  gin_args.add_arguments(parser, required=True)
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  host_args.join(args)
  gin_args.set_up(args)
  from aya_train import config, train_loop
  from aya_train.data import data_manifest

  on_data = data_manifest.writer(config.check_licenses())
  config.call(train_loop.train, on_start=config.write, on_data=on_data)
