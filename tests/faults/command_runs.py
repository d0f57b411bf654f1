"""Whole commands in the children of trials: their words, and what they need."""

import os
import pathlib
import sys

from aya_train.cli import main
from tests.faults import forks, tiny_runs

_MODEL = """
from __gin__ import dynamic_registration
from aya_train.models import t5_config
import seqio
include 'models/mt5_tiny.gin'
include 'recipes/{recipe}.gin'
include 'hardware/cpu_local.gin'
VOCABULARY = @seqio.PassThroughVocabulary()
seqio.PassThroughVocabulary:
  size = 96
  eos_id = 1
t5_config.T5Config:
  emb_dim = 16
  mlp_dim = 16
MIXTURE_OR_TASK_NAME = 'tests.copy'
MIXTURE_OR_TASK_MODULE = 'tests.faults.copy_task'
TASK_FEATURE_LENGTHS = {{'inputs': 16, 'targets': 8}}
BATCH_SIZE = 4
"""
_TRAIN = """
INITIAL_CHECKPOINT_PATH = None
RANDOM_SEED = 0
INFER_EVAL_CFG = None
LOG_PERIOD = 1
EVAL_PERIOD = 4
EVAL_STEPS = 2
CHECKPOINT_PERIOD = 2
TRAIN_STEPS = 6
DATA_LICENSE_POLICY = 'unspecified'
"""
KINDS = ('train', 'prepare', 'eval', 't5x', 'native')


def gin(recipe: str) -> str:
  """A recipe made as small as it can be; paths are still to be given."""
  return _MODEL.format(recipe=recipe) + (_TRAIN if recipe == 'sft' else "SPLIT = 'validation'\n")


def train_words(
  root: pathlib.Path, model_dir: pathlib.Path, prepared_dir: pathlib.Path
) -> list[str]:
  (root / 'train.gin').write_text(gin('sft'))
  return [
    *('train', f'--gin_file={root}/train.gin'),
    *(f'--gin.MODEL_DIR="{model_dir}"', f'--gin.PREPARED_DIR="{prepared_dir}"'),
  ]


def words(kind: str, root: pathlib.Path, to: pathlib.Path) -> list[str]:
  """The command of a kind that writes below `to`, and reads what `prepare` made below `root`."""
  if kind == 'train':
    return train_words(root, to / 'run', root / 'prepared')
  if kind == 'prepare':
    return ['prepare', *train_words(root, root / 'nothing', to / 'prepared')[1:], '--workers=1']
  if kind == 'eval':
    (root / 'eval.gin').write_text(gin('eval'))
    return [
      *('eval', f'--gin_file={root}/eval.gin', f'--gin.CHECKPOINT_PATH="{root}/trained"'),
      *(f'--gin.EVAL_OUTPUT_DIR="{to}/eval"', f'--gin.PREPARED_DIR="{root}/prepared"'),
    ]
  more = ['--no-scan_layers'] if kind == 'native' else []
  return ['convert', f'{root}/trained', f'{to}/converted', '--to', kind, *more]


def command(root: pathlib.Path, given: list[str]) -> None:
  """Runs `aya-train WORDS`, and ends with its exit code."""
  tiny_runs.set_up(root)
  code = main.main(given)
  sys.stdout.flush()
  sys.stderr.flush()

  os._exit(code)


def prepare(root: pathlib.Path) -> None:
  """Makes what the commands read: a trained model, and the prepared task."""

  log = str(root / 'log')
  forks.run(log, command, root, train_words(root, root / 'trained', root / 'prepared'))
  (root / 'out').mkdir()
  forks.run(log, command, root, words('eval', root, root / 'out'))  # prepares its split
