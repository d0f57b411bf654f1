"""A run is read from its files; what this process holds stays as it is."""

import json

import gin
import pytest

from aya_train import config
from aya_train.report import run_record
from aya_train.tasks import features
from aya_train.tasks.mixtures import source_mixture
from aya_train.tasks.user import user_data

GIN = """
from __gin__ import dynamic_registration
from nowhere import tasks_of_mine

BATCH_SIZE = 16
DATASET_TABLES = ('nowhere.tsv',)
MIXTURE_OR_TASK_MODULE = 'nowhere.tasks'
MIXTURE_OR_TASK_NAME = 'mine'
MIXTURE_WITHIN_SOURCE = 'uniform'
OPTIMIZER = @optimizer.adafactor
TASK_FEATURE_LENGTHS = {'inputs': %BATCH_SIZE, 'targets': 4}
TRAIN_EVAL_MIXTURE_OR_TASK_NAME = %MIXTURE_OR_TASK_NAME
VOCABULARY_FILE = 'nowhere.model'
"""
RECORD = {'step': 9, 'kind': 'train', 'loss_per_target_token': 1.0, 'accuracy': 0.5}


@pytest.fixture
def model_dir(tmp_path):
  (tmp_path / 'checkpoints' / '9').mkdir(parents=True)
  (tmp_path / 'config.gin').write_text(GIN)
  (tmp_path / 'run.json').write_text(json.dumps({'first_step': 7}))
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(RECORD) + '\n')
  return tmp_path


def test_a_run_is_found_from_its_folders(model_dir):
  for path in (model_dir, model_dir / 'checkpoints', model_dir / 'checkpoints' / '9'):
    assert run_record.find(path) == model_dir
  assert run_record.find(model_dir.parent) is None


def test_macros_are_values(model_dir):
  run = run_record.read_measured(model_dir)
  assert run.macro('TRAIN_EVAL_MIXTURE_OR_TASK_NAME') == 'mine'
  assert run.macro('TASK_FEATURE_LENGTHS') == {'inputs': 16, 'targets': 4}
  assert run.macro('NO_SUCH_MACRO') is None
  assert run.imports == ['nowhere.tasks_of_mine']
  assert (run.first_step, run.of_kind('train'), run.gin_text) == (7, [RECORD], GIN)
  with pytest.raises(ValueError, match=r'config\.gin: OPTIMIZER = @optimizer\.adafactor cannot be'):
    run.macro('OPTIMIZER')


def test_reading_changes_nothing_in_this_process(model_dir):
  files = ['models/mt5_tiny.gin', 'recipes/sft_smoke.gin', 'hardware/cpu_local.gin']
  config.parse(files, ["MODEL_DIR = 'x'"])

  def held():
    return (
      config.text(),
      features.vocabulary_file(),
      source_mixture.settings(),
      sorted(user_data._DATASETS),
    )

  before = held()
  run_record.read_measured(model_dir)
  try:
    assert held() == before
  finally:
    gin.clear_config()


def test_what_a_run_did_not_write_is_empty(model_dir):
  for name in ('config.gin', 'metrics.jsonl'):
    (model_dir / name).unlink()
  run = run_record.read(model_dir)
  assert (run.records, run.macros, run.imports, run.gin_text) == ([], {}, [], '')


@pytest.mark.parametrize('name', ['metrics.jsonl', 'run.json', 'config.gin'])
def test_a_folder_without_the_files_of_a_run_is_refused(model_dir, name):
  (model_dir / name).unlink()
  with pytest.raises(FileNotFoundError, match=f'no {name} in .*MODEL_DIR'):
    run_record.read_measured(model_dir)


def test_a_run_that_measured_nothing_is_refused(model_dir):
  (model_dir / 'metrics.jsonl').write_text('')
  with pytest.raises(ValueError, match='LOG_PERIOD'):
    run_record.read_measured(model_dir)
