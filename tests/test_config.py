import math

import gin
import pytest

from aya_train import config, gin_text, train_loop
from aya_train.data import batching
from aya_train.evaluation import evaluation, infer_eval
from aya_train.objectives import seq2seq
from aya_train.tasks import features

SMOKE = ['models/mt5_tiny.gin', 'recipes/sft_smoke.gin', 'hardware/cpu_local.gin']
MODEL_DIR = 'MODEL_DIR = "somewhere"'


@pytest.fixture(autouse=True)
def clean():
  yield
  gin.clear_config()
  features.set_vocabulary(None)


def test_aya101_is_the_published_run():
  config.parse(['aya101.gin'], [MODEL_DIR])
  assert {name: config.macro(name) for name in PUBLISHED} == PUBLISHED
  assert math.prod(config.macro('MESH_SHAPE').values()) == 64  # chips of TPUv4-128
  for parameter, value in PUBLISHED_PARAMETERS.items():
    assert gin.query_parameter(parameter) == value, parameter


PUBLISHED = {
  'BATCH_SIZE': 256,
  'TASK_FEATURE_LENGTHS': {'inputs': 1024, 'targets': 1024},
  'PACK': True,
  'BASE_LEARNING_RATE': 3e-4,
  'LEARNING_RATE_FACTORS': 'constant',
  'TRAIN_STEPS': 1_030_000,
  'TRAIN_STEPS_RELATIVE': 30_000,
  'LOSS_NORMALIZING_FACTOR': 'AVERAGE_PER_SEQUENCE',
  'INITIAL_CHECKPOINT_PATH': 'gs://t5-data/pretrained_models/t5x/mt5_xxl/checkpoint_1000000',
  'VOCABULARY_FILE': 'gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model',
  'DROPOUT_RATE': 0.1,
  'Z_LOSS': 1e-4,
  'LABEL_SMOOTHING': 0.0,
  'ACTIVATION_DTYPE': 'bfloat16',
}
PUBLISHED_PARAMETERS = {
  't5_config.T5Config.vocab_size': 250112,
  't5_config.T5Config.emb_dim': 4096,
  't5_config.T5Config.num_heads': 64,
  't5_config.T5Config.head_dim': 64,
  't5_config.T5Config.mlp_dim': 10240,
  't5_config.T5Config.num_encoder_layers': 24,
  't5_config.T5Config.num_decoder_layers': 24,
  'optimizer.adafactor.decay_rate': 0.8,
}


@pytest.mark.parametrize('size', ['tiny', 'small', 'base', 'large', 'xl', 'xxl'])
def test_every_model_file_goes_with_every_recipe(size):
  config.parse(
    [f'models/mt5_{size}.gin', 'recipes/sft_aya.gin', 'hardware/cpu_local.gin'],
    [MODEL_DIR, 'VOCABULARY_FILE = None'],
  )
  assert gin.query_parameter('t5_config.T5Config.emb_dim') > 0


@pytest.mark.parametrize(
  ('recipe', 'bindings'),
  [
    (
      'recipes/eval.gin',
      [
        'CHECKPOINT_PATH = "a"',
        'EVAL_OUTPUT_DIR = "b"',
        'MIXTURE_OR_TASK_NAME = "c"',
        'TASK_FEATURE_LENGTHS = {}',
      ],
    ),
    ('recipes/infer.gin', ['CHECKPOINT_PATH = "a"', 'OUTPUT_FILE = "b"']),
  ],
)
def test_the_other_recipes_parse(recipe, bindings):
  config.parse(['models/mt5_tiny.gin', recipe, 'hardware/cpu_local.gin'], bindings)
  assert config.macro('CHECKPOINT_PATH') == 'a'


def test_the_smoke_recipe_reaches_the_trainer(monkeypatch):
  seen = {}
  monkeypatch.setattr(seq2seq.EncoderDecoderModel, 'check_vocabulary', lambda self: None)
  config.parse(
    [*SMOKE],
    [
      MODEL_DIR,
      'TRAIN_STEPS = 7',
      'DROPOUT_RATE = 0.25',
      't5_config.T5Config.vocab_size = 128',
      'EVAL_PERIOD = 3',
      'NUM_MICROBATCHES = 2',
      'TASK_FEATURE_LENGTHS = {"inputs": 8, "targets": 4}',
    ],
  )

  def stop(model, **kwargs):
    seen.update(kwargs, model=model)
    raise StopIteration

  monkeypatch.setattr(train_loop, '_check', lambda model, *a: stop(model, args=a))
  with pytest.raises(StopIteration):
    config.call(train_loop.train)
  train_cfg, train_eval_cfg, infer_cfg, partitioner, micro = seen['args']
  assert seen['model'].config.dropout_rate == 0.25
  assert train_cfg.task_feature_lengths == {'inputs': 8, 'targets': 4}
  assert (train_cfg.split, train_eval_cfg.split, infer_cfg.mixture_or_task_name) == (
    'train',
    'validation',
    'cldr',
  )
  assert micro == 2
  assert partitioner.num_data_shards == 8
  assert isinstance(infer_cfg, infer_eval.InferEvalConfig)


def test_required_macros_are_named():
  with pytest.raises(ValueError, match=r'required macros without a value: MODEL_DIR; give each'):
    config.parse(SMOKE)


def test_an_unknown_macro_is_refused_with_close_names():
  with pytest.raises(ValueError, match=r'unknown gin macro TRIAN_STEPS.*did you mean TRAIN_STEPS'):
    config.parse(SMOKE, [MODEL_DIR, 'TRIAN_STEPS = 5'])


def test_a_string_without_quotes_is_explained():
  with pytest.raises(ValueError, match=r"""--gin.MODEL_DIR='"/tmp/run"'"""):
    config.parse(SMOKE, ['MODEL_DIR = /tmp/run'])


def test_an_unknown_parameter_is_refused():
  with pytest.raises(ValueError, match='no_such_parameter'):
    config.parse(SMOKE, [MODEL_DIR, 't5_config.T5Config.no_such_parameter = 5'])


def test_an_unknown_file_is_refused_with_close_names():
  with pytest.raises(
    FileNotFoundError, match=r"no gin file 'models/mt5_tny.gin'.*models/mt5_tiny.gin"
  ):
    config.parse(['models/mt5_tny.gin'])


def test_search_paths_come_before_the_package(tmp_path):
  (tmp_path / 'mine.gin').write_text('include "models/mt5_tiny.gin"\nDROPOUT_RATE = 0.5\n')
  config.parse(['mine.gin'], search_paths=[str(tmp_path)])
  assert config.macro('DROPOUT_RATE') == 0.5


def test_parsing_leaves_the_vocabulary_of_the_tasks_alone():
  before = features.vocabulary_file()
  config.parse(SMOKE, [MODEL_DIR, 'VOCABULARY_FILE = "/some/file.model"'])
  assert features.vocabulary_file() == before
  config.configure_vocabulary()
  assert features.vocabulary_file() == '/some/file.model'
  config.parse(SMOKE, [MODEL_DIR])
  config.configure_vocabulary()  # without a value nothing changes
  assert features.vocabulary_file() == '/some/file.model'


RECIPES = {
  'smoke': (SMOKE, [MODEL_DIR]),
  'aya101': (['aya101.gin'], [MODEL_DIR]),
  'base': (
    ['models/mt5_base.gin', 'recipes/sft.gin', 'hardware/gpu_8.gin'],
    [
      MODEL_DIR,
      'MIXTURE_OR_TASK_NAME = "mine"',
      'LENGTH = 7',
      'TASK_FEATURE_LENGTHS = {"inputs": %LENGTH, "targets": 4}',
      'TRAIN_STEPS = 3',
      'INITIAL_CHECKPOINT_PATH = %MODEL_DIR',
      'DATASET_TABLES = ("a.tsv", %MODEL_DIR)',
    ],
  ),
  'eval': (
    ['models/mt5_small.gin', 'recipes/eval.gin', 'hardware/tpu_v4_8.gin'],
    [
      'CHECKPOINT_PATH = "a"',
      'EVAL_OUTPUT_DIR = %CHECKPOINT_PATH',
      'MIXTURE_OR_TASK_NAME = "c"',
      'TASK_FEATURE_LENGTHS = {}',
    ],
  ),
}


@pytest.mark.parametrize('recipe', RECIPES)
def test_a_written_text_gives_the_values_that_gin_evaluates(recipe, tmp_path):
  gin_files, bindings = RECIPES[recipe]
  (tmp_path / 'bindings.gin').write_text('\n'.join(bindings))
  config.parse([*gin_files, str(tmp_path / 'bindings.gin')])
  config.write(tmp_path)
  written = gin_text.macros((tmp_path / 'config.gin').read_text())
  read = gin_text.resolved(written)
  assert len(read) > 20 and read.keys() == written.keys()
  for name, value in read.items():
    if isinstance(value, gin_text.Reference):
      assert value.startswith('@'), name
    else:
      assert value == config.macro(name), name
  functions = {name for name, value in read.items() if isinstance(value, gin_text.Reference)}
  known = {'MODEL', 'NETWORK', 'VOCABULARY', 'OPTIMIZER', 'DECODE_FN', 'PARTITIONER'}
  assert functions <= known | {'INFER_EVAL_CFG', 'DATASET_CFG'}


def test_reading_a_text_changes_nothing_that_gin_holds():
  config.parse(SMOKE, [MODEL_DIR])
  before = config.text()
  text = 'import no_such_module\nBATCH_SIZE = 3\nMODEL_DIR = @no_such_function()\n'
  assert gin_text.macros(text) == {'BATCH_SIZE': 3, 'MODEL_DIR': '@no_such_function()'}
  assert gin_text.imports(text) == ['no_such_module']
  assert config.text() == before


def test_a_folder_of_that_name_on_the_path_is_no_package(tmp_path, monkeypatch):
  """`python -m aya_train` has the working directory on its path, and that may hold `models/`."""
  (tmp_path / 'models').mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  config.parse(SMOKE, [MODEL_DIR])
  assert config.macro('BATCH_SIZE') == 32


def test_home_is_meant_wherever_a_path_is_given(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  bindings = [
    "MODEL_DIR = '~/run'",
    "DATASET_TABLES = ('~/a.toml', 'b.toml')",
    "VOCABULARY_FILE = '~/v.model'",
    "train/batching.DatasetConfig.prepared_dir = '~/prepared'",
  ]
  config.parse(['models/mt5_tiny.gin', 'recipes/sft_smoke.gin', 'hardware/cpu_local.gin'], bindings)
  assert config.macro('MODEL_DIR') == '/home/me/run'
  assert config.macro('DATASET_TABLES') == ('/home/me/a.toml', 'b.toml')
  assert config.macro('VOCABULARY_FILE') == '/home/me/v.model'
  assert "DatasetConfig.prepared_dir = '/home/me/prepared'" in config.text()
  bindings = ["PROMPTS = ('~ is a tilde',)"]
  config.parse(['models/mt5_tiny.gin', 'recipes/infer.gin'], bindings, require_all=False)
  assert config.macro('PROMPTS') == ('~ is a tilde',)


@pytest.mark.parametrize('length', ['None', '0', '1.5', "'8'"])
def test_lengths_are_numbers_of_tokens(length):
  files = ['models/mt5_tiny.gin', 'recipes/sft_smoke.gin', 'hardware/cpu_local.gin']
  with pytest.raises(ValueError, match='TASK_FEATURE_LENGTHS must give a number of tokens'):
    config.parse(
      files, ["MODEL_DIR = 'x'", f"TASK_FEATURE_LENGTHS = {{'inputs': 8, 'targets': {length}}}"]
    )


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_gin_file_may_have_a_byte_order_mark(encoding, tmp_path):
  (tmp_path / 'a.gin').write_bytes("BATCH_SIZE = 3\r\nMODEL_DIR = 'é'\r\n".encode(encoding))
  config.parse([*SMOKE, str(tmp_path / 'a.gin')], [])
  assert (config.macro('BATCH_SIZE'), config.macro('MODEL_DIR')) == (3, 'é')


@pytest.mark.parametrize(
  ('then', 'binding', 'today'),
  [
    ('from aya_train import data', 'data.DatasetConfig.batch_size', batching.DatasetConfig),
    ('from aya_train import infer_eval  # of then', 'infer_eval.InferEvalConfig.batch_size',
     infer_eval.InferEvalConfig),
    ('from aya_train import evaluation as e', 'e.LossConfig.batch_size', evaluation.LossConfig),
    ('from aya_train.models import seq2seq', 'seq2seq.EncoderDecoderModel.z_loss',
     seq2seq.EncoderDecoderModel),
  ],
)  # fmt: skip
def test_modules_that_have_moved_are_found_by_their_names_of_then(then, binding, today, tmp_path):
  path = tmp_path / 'config.gin'
  path.write_text(f'from __gin__ import dynamic_registration\n{then}\n\n{binding} = 7\n')
  config.parse([str(path)])
  assert config.bound(today)(binding.rpartition('.')[2]) == 7


def test_a_gin_file_of_other_bytes_is_named(tmp_path):
  (tmp_path / 'a.gin').write_bytes(b'BATCH_SIZE = 3  # caf\xe9\n')
  with pytest.raises(ValueError, match=r'a\.gin.*is not UTF-8'):
    config.parse([*SMOKE, str(tmp_path / 'a.gin')], [MODEL_DIR])


def test_lengths_name_their_features():
  with pytest.raises(ValueError, match=r"must name features, as in \{'inputs': .*got 128"):
    config.parse(SMOKE, [MODEL_DIR, 'TASK_FEATURE_LENGTHS = 128'])


@pytest.mark.parametrize('name', ['BASE_LEARNING_RATE', 'optimizer.adafactor.decay_rate'])
def test_infinity_is_refused_by_name(name):
  with pytest.raises(ValueError, match=f'{name} = inf: expected a finite number'):
    config.parse(SMOKE, [MODEL_DIR, f'{name} = 1e999'])


def test_the_folder_of_benchmarks_is_applied_and_taken_back(monkeypatch):
  from aya_train.tasks.eval import eval_releases

  monkeypatch.delenv(eval_releases.EVAL_DATA_ENV, raising=False)
  config.configure_data({'EVAL_DATA_DIR': '/data/released'}.get)
  assert str(eval_releases.eval_data_dir()) == '/data/released'
  config.configure_data({}.get)
  assert eval_releases.eval_data_dir() is None


@pytest.mark.parametrize('value', ['None', "'spiece.model'", 'True', '[1]', '250112'])
def test_a_vocabulary_is_a_reference(value):
  with pytest.raises(ValueError, match=r'VOCABULARY = .*expected a reference to TextVocabulary'):
    config.parse(SMOKE, [MODEL_DIR, f'VOCABULARY = {value}'])


@pytest.mark.parametrize(
  'binding',
  [
    "MIXTURE_DATASET_WEIGHTS = ''",
    'MIXTURE_DATASET_WEIGHTS = 3',
    "MIXTURE_DATASET_WEIGHTS = {'aya_dataset': 50}",
    "MIXTURE_DATASET_WEIGHTS = {'aya_dataset': {'x': 'half'}}",
    'MIXTURE_WITHIN_SOURCE = 1',
    "MIXTURE_WITHIN_SOURCE = {'aya_dataset': 1}",
    'MIXTURE_MISSING_SOURCES = True',
  ],
)
def test_settings_of_mixtures_are_of_their_kind(binding):
  name = binding.partition(' ')[0]
  with pytest.raises(ValueError, match=f'{name} = .*: expected'):
    config.parse(SMOKE, [MODEL_DIR, binding])
