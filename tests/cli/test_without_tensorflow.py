"""What needs no tasks imports no TensorFlow, which takes seconds and most of a gigabyte."""

import json
import subprocess
import sys

import pytest

from aya_train.checkpoint.hf import hf_export
from tests.checkpoint import small_model

PROGRAM = """
import sys
from aya_train import task_registration
from aya_train.cli import main
task_registration.put_off()  # as `console` does, which ends the process
code = main.main(sys.argv[1:])
sys.stdout.flush()
print('imported', [n for n in ('tensorflow', 'seqio') if n in sys.modules], file=sys.stderr)
sys.exit(code)
"""
FILES = [f'--gin_file={n}.gin' for n in ('models/mt5_tiny', 'recipes/infer', 'hardware/cpu_local')]


def called(*arguments, folder):
  """What a command prints, and what is the last line of its log."""
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, *arguments],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    cwd=folder,
  )
  return done.returncode, done.stdout, done.stderr.splitlines()


def test_prompts_are_answered(vocabulary_file, tmp_path):
  sizes = {'emb_dim': 128, 'num_heads': 4, 'head_dim': 32, 'mlp_dim': 256}
  config = small_model.config(**sizes, num_encoder_layers=2)
  params = small_model.random_params(config)
  hf_export.export(params, config, vocabulary_file, tmp_path / 'model')
  code, answer, log = called(
    *('infer', *FILES, '--checkpoint=model', '--prompt=Mwanaume alifungua'),
    f'--gin.VOCABULARY_FILE="{vocabulary_file}"',
    folder=tmp_path,
  )
  assert (code, log[-1]) == (0, 'imported []'), log
  assert json.loads(answer)['inputs'] == 'Mwanaume alifungua'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('infer', *FILES, '--prompt=a'), 'required macros without a value: CHECKPOINT_PATH'),
    *[
      ((command, '--gin_file=nowhere.gin'), "no gin file 'nowhere.gin'")
      for command in ('train', 'eval', 'score', 'prepare', 'infer')
    ],
    (('train', *FILES[::2], '--gin_file=recipes/sft.gin'), 'required macros without a value'),
    (('eval', *FILES[::2], '--gin_file=recipes/eval.gin'), 'required macros without a value'),
    (('judge', 'no.jsonl', 'none.jsonl', '--model=x', '--output=out'), 'no.jsonl'),
    (('teach', 'no.jsonl', '--model=x', '--output=out', '--license=mit'), 'no.jsonl'),
  ],
)
def test_what_is_wrong_is_said_at_once(arguments, message, tmp_path):
  code, _, log = called(*arguments, folder=tmp_path)
  assert code == 1 and log[-1] == 'imported []', log
  assert message in log[-2]


@pytest.mark.parametrize('named', ['MIXTURE_OR_TASK_NAME="cldr.no"', 'DATASET_TABLES=("no.toml",)'])
def test_tasks_are_registered_where_they_are_named(named, tmp_path):
  code, _, log = called(*('infer', *FILES, '--checkpoint=model', f'--gin.{named}'), folder=tmp_path)
  assert code == 1 and log[-1] == "imported ['tensorflow', 'seqio']", log


def test_a_gin_file_that_imports_a_module_of_a_user_finds_the_tasks_registered(
  vocabulary_file, tmp_path
):
  (tmp_path / 'mine.py').write_text(
    'import seqio\nassert "cldr.yor" in seqio.TaskRegistry.names()\nclass Mine: pass\n'
  )
  (tmp_path / 'mine.gin').write_text('from __gin__ import dynamic_registration\nimport mine\n')
  code, _, log = called(
    *('infer', *FILES, '--gin_file=mine.gin', '--checkpoint=model', '--prompt=a'),
    f'--gin.VOCABULARY_FILE="{vocabulary_file}"',
    folder=tmp_path,
  )
  assert code == 1 and 'no checkpoint at model' in log[-2], log
