import argparse

import gin
import pytest

from aya_train.cli import gin_args, slice_args
from aya_train.tasks import features
from aya_train.tasks.mixtures import aya_mixtures, source_mixture
from aya_train.tpu import topologies


@pytest.fixture(autouse=True)
def clean():
  yield
  gin.clear_config()
  features.set_vocabulary(None)
  aya_mixtures.configure(source_mixture.MixtureSettings())


def parsed(*words):
  parser = argparse.ArgumentParser()
  slice_args.add_arguments(parser)
  return parser.parse_args(gin_args.rewrite_gin_args([*words, '--topology=v4-8']))


def test_t5x_style_arguments_are_rewritten():
  got = gin_args.rewrite_gin_args(['train', '--gin.A.b="c=d"', '--gin_file=x'])
  assert got == ['train', '--gin_bindings=A.b = "c=d"', '--gin_file=x']
  with pytest.raises(ValueError, match=r'expected --gin\.NAME=VALUE'):
    gin_args.rewrite_gin_args(['--gin.A'])


WORDS = (
  '--gin_file=models/mt5_tiny.gin',
  '--gin_file=recipes/sft_smoke.gin',
  '--gin_file=hardware/cpu_local.gin',
  '--gin.MODEL_DIR="x"',
  '--gin.VOCABULARY_FILE="/some/file.model"',
  '--gin.MIXTURE_WITHIN_SOURCE="uniform"',
)


def test_a_command_that_reads_data_sets_vocabulary_and_mixtures():
  gin_args.set_up(parsed(*WORDS))
  assert features.vocabulary_file() == '/some/file.model'
  assert source_mixture.settings().within_source == 'uniform'


def test_a_command_for_a_slice_sets_the_vocabulary_and_looks_for_no_data(monkeypatch):
  monkeypatch.setattr(topologies, 'require_libtpu', lambda: None)
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  slice_ = slice_args.set_up(parsed(*WORDS, '--gin.DATASET_TABLES=("no.tsv",)'))
  assert slice_.name == 'v4-8'
  assert features.vocabulary_file() == '/some/file.model'
  assert source_mixture.settings().within_source == 'proportional'


def test_the_module_of_tasks_is_imported_before_the_tables_are_read(tmp_path, monkeypatch):
  (tmp_path / 'tasks_of_mine.py').write_text('')
  monkeypatch.syspath_prepend(str(tmp_path))
  words = ('--gin.MIXTURE_OR_TASK_MODULE="no_such_tasks"', '--gin.DATASET_TABLES=("no.tsv",)')
  with pytest.raises(ValueError, match="MIXTURE_OR_TASK_MODULE 'no_such_tasks' cannot be imported"):
    gin_args.set_up(parsed(*WORDS, *words))
  words = ('--gin.MIXTURE_OR_TASK_MODULE="tasks_of_mine"', '--gin.DATASET_TABLES=("no.tsv",)')
  with pytest.raises((ValueError, OSError), match=r'no\.tsv'):
    gin_args.set_up(parsed(*WORDS, *words))
