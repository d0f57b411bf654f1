"""`aya-train infer`. Its own arguments are bindings of gin that are shorter to write."""

import argparse
import os
from typing import Any

from aya_train.cli import gin_args, host_args

SUMMARY = 'answers of a checkpoint to prompts'
AS_CHECKPOINT = 'checkpoint'
DECODING = ('greedy', 'beams', 't5x_beams', 'aya_sampling')  # files of gin/decoding


class _Bind(argparse.Action):
  """Binds a macro, before what `--gin.NAME=VALUE` binds; if given again, to all values."""

  def __init__(self, *args: Any, macro: str, several: bool = False, **kwargs: Any):
    super().__init__(*args, **{**kwargs, 'default': argparse.SUPPRESS})
    self._macro, self._several = macro, several

  def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
    if self.nargs == 0:
      values = self.const
    if self._several:
      values = (*getattr(namespace, self.dest, ()), values)
      setattr(namespace, self.dest, values)
    _bind(namespace, f'{self._macro} = {values!r}')


class _Decode(argparse.Action):
  """Reads a file of gin/decoding after all gin files, or takes the checkpoint's own way."""

  def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
    if values == AS_CHECKPOINT:
      _bind(namespace, 'DECODE_AS_CHECKPOINT = True')
    else:
      _bind(namespace, f"include 'decoding/{values}.gin'")


def _bind(namespace: argparse.Namespace, binding: str) -> None:
  count = getattr(namespace, 'own_bindings', 0)
  bindings = namespace.gin_bindings
  namespace.gin_bindings = [*bindings[:count], binding, *bindings[count:]]
  namespace.own_bindings = count + 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
  gin_args.add_arguments(parser, required=True)

  def add(name: str, macro: str, text: str, **options: Any) -> None:
    parser.add_argument(name, action=_Bind, macro=macro, help=f'{text} ({macro})', **options)

  path = {'type': os.path.expanduser, 'metavar': 'PATH'}
  add('--checkpoint', 'CHECKPOINT_PATH', 'what answers', **path)
  add('--prompt', 'PROMPTS', 'what to answer; repeatable', several=True, metavar='TEXT')
  add('--prompts_file', 'PROMPTS_FILE', "lines, or JSON lines; '-' is standard input", **path)
  add('--output_file', 'OUTPUT_FILE', "JSON lines; '-', the default, is standard output", **path)
  add('--num_samples', 'NUM_SAMPLES', 'answers to each prompt', type=int, metavar='N')
  add('--overwrite', 'OVERWRITE', 'replace an output of something else', nargs=0, const=True)
  parser.add_argument(
    '--decoding',
    action=_Decode,
    choices=(*DECODING, AS_CHECKPOINT),
    default=argparse.SUPPRESS,
    help='a file of gin/decoding; or as generation_config.json of the checkpoint says',
  )
  host_args.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
  from aya_train import config, inference

  host_args.join(args)
  gin_args.set_up_prompts(args)
  config.call(inference.infer)
