import subprocess
import sys

import pytest
import tensorflow as tf

from aya_train import user_code
from aya_train.cli import main, report_command
from aya_train.tasks import features

SMOKE = [
  '--gin_file=models/mt5_tiny.gin',
  '--gin_file=recipes/sft_smoke.gin',
  '--gin_file=hardware/cpu_local.gin',
  # Without it the width would come from the vocabulary, which a fresh machine has not trained yet.
  '--gin.t5_config.T5Config.vocab_size=512',
]


@pytest.fixture(autouse=True)
def default_vocabulary():
  yield
  features.set_vocabulary(None)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--gin.MODEL_DIR="x"', '--gin.BATHC_SIZE=3'], 'unknown gin macro BATHC_SIZE'),
    ([], 'required macros without a value: MODEL_DIR'),
    (['--gin.MODEL_DIR=x'], "'x' is not a gin value"),
    (['--gin.MODEL_DIR="x"', '--gin_file=nowhere.gin'], "no gin file 'nowhere.gin'"),
    (
      ['--gin.MODEL_DIR="x"', '--gin.ACTIVATION_DTYPE="bf16"'],
      "(ACTIVATION_DTYPE) must be float32 or bfloat16, got 'bf16'",
    ),
    (['--gin.MODEL_DIR="x"', '--gin.DROPOUT_RATE=2'], 'dropout_rate must be in [0, 1), got 2'),
    (['--gin.MODEL_DIR="x"', '--gin.EVAL_PERIOD=0'], 'EVAL_PERIOD must be at least 1, got 0'),
    (['--gin.MODEL_DIR="x"', '--gin.EVAL_STEPS=0'], 'EVAL_STEPS must be at least 1, got 0'),
    (
      ['--gin.MODEL_DIR="x"', '--gin.EVALUATOR_NUM_EXAMPLES=0'],
      'EVALUATOR_NUM_EXAMPLES must be None (all) or at least 1, got 0',
    ),
    (['--gin.MODEL_DIR="x"', "--gin.LOSS_NORMALIZING_FACTOR='X'"], "got 'X'"),
    (
      ['--gin.MODEL_DIR="x"', '--gin.VOCABULARY_FILE="no.model"'],
      'no SentencePiece file at no.model',
    ),
    (
      ['--gin.MODEL_DIR="x"', '--gin.VOCABULARY_FILE=""'],
      "VOCABULARY_FILE = '' names no path",
    ),
    (
      ['--gin.MODEL_DIR="x"', '--gin.BATCH_SIZE="16"'],
      "BATCH_SIZE = '16': expected a whole number (batching.DatasetConfig.batch_size), got str",
    ),
    (
      ['--gin.MODEL_DIR="x"', '--gin.DATASET_TABLES="my.toml"'],
      "DATASET_TABLES = 'my.toml': expected a tuple, each a string",
    ),
    (['--gin.MODEL_DIR="x"', '--gin.MIXTURE_OR_TASK_NAME="cldr_smok"'], "'cldr_smoke'"),
    (
      ['--gin.MODEL_DIR="x"', '--gin.MIXTURE_OR_TASK_MODULE="no_such"'],
      "MIXTURE_OR_TASK_MODULE 'no_such' cannot be imported",
    ),
  ],
)
def test_bad_input_ends_in_one_message(arguments, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main.main(['train', *SMOKE, *arguments]) == 1
  error = capsys.readouterr().err
  assert message in error
  assert 'Traceback' not in error
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (SMOKE[1:3], 'defines MODEL, which is needed: give one that does, one of models/*.gin'),
    (SMOKE[:2], 'defines PARTITIONER, which is needed: give one that does, one of hardware/*.gin'),
  ],
)
def test_a_kind_of_file_that_is_lacking_is_told_in_one_line(files, message, capsys):
  assert main.main(['train', *files, '--gin.MODEL_DIR="x"']) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      "include 'models/mt5_tiny.gin'\nBATCH_SIZE = = 3\n",
      'Unable to parse value. (my.gin, line 2)',
    ),
    ('no_such.thing = 3\n', 'No configurable matching \'no_such\'. In file "my.gin", line 1'),
    ("include 'models/nope.gin'\n", "no gin file 'models/nope.gin', which my.gin includes"),
    (
      'from __gin__ import dynamic_registration\nimport no_such_module\n',
      'No module named \'no_such_module\' In file "my.gin", line 2',
    ),
    (
      'from __gin__ import dynamic_registration\nfrom aya_train import train_loop\n'
      'train_loop.train.model = @nope.Model()\n',
      '\'nope\' was not provided by an import statement. In file "my.gin", line 3',
    ),
  ],
)
def test_a_fault_in_a_gin_file_is_told_with_its_line(text, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'my.gin').write_text(text)
  assert main.main(['train', *SMOKE, '--gin_file=my.gin', '--gin.MODEL_DIR="x"']) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1


def test_an_error_in_a_module_of_tasks_is_told_with_its_line(capsys, tmp_path, monkeypatch):
  (tmp_path / 'tasks_with_a_slip.py').write_text('import seqio\nseqio.no_such_name\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  words = ['--gin.MODEL_DIR="x"', '--gin.MIXTURE_OR_TASK_MODULE="tasks_with_a_slip"']
  assert main.main(['train', *SMOKE, *words]) == 1
  error = capsys.readouterr().err
  assert 'cannot be imported: AttributeError' in error and 'tasks_with_a_slip.py, line 2)' in error
  assert 'defect' not in error


def test_debug_shows_the_traceback(capsys):
  assert main.main(['train', *SMOKE, '--debug']) == 1
  assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['convert', 'nowhere', 'dst'], 'no checkpoint at nowhere'),
    (['prepare', 'clrd'], "unknown sources ['clrd']"),
    (['prepare'], 'prepare what?'),
    (['prepare', 'cldr', '--output_dir=x'], '--output_dir: counts for sources that are read from'),
    (['prepare', 'cldr', '--num_shards=2', '--languages=yor'], '--languages, --num_shards: counts'),
    (['prepare', '--gin_file=recipes/eval.gin', '--revision=x'], '--revision: counts for'),
    (
      ['prepare', '--gin_file=recipes/eval.gin', '--gin.MIXTURE_OR_TASK_NAME="cldr"'],
      'no gin file given configures aya_train.train_loop.train',
    ),
    (['report', 'nowhere'], 'nowhere'),
  ],
)
def test_other_commands_refuse_in_one_message(arguments, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main.main(arguments) == 1
  error = capsys.readouterr().err
  assert message in error
  assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
  ('error', 'message', 'is_defect'),
  [
    (
      tf.errors.FailedPreconditionError(None, None, 'No host\n\t when reading gs://bucket/x'),
      'a path in a bucket cannot be reached: No host when reading gs://bucket/x. Are the name',
      False,
    ),
    (
      RuntimeError('RESOURCE_EXHAUSTED: No space left on device\n  In call to configurable'),
      'the disk is full (RESOURCE_EXHAUSTED: No space left on device): make room',
      False,
    ),
    (TypeError('x'), 'TypeError: x', True),
  ],
)
def test_what_comes_from_outside_is_no_defect(error, message, is_defect, capsys, monkeypatch):
  def fail(args):
    raise error

  monkeypatch.setattr(report_command, 'run', fail)
  # Raised in this file, it would be an error in code of a user's.
  monkeypatch.setattr(user_code, 'place', lambda error: '')
  assert main.main(['report', 'x']) == 1
  told = capsys.readouterr().err
  assert told.startswith(f'aya-train report: error: {message}')
  assert ('looks like a defect' in told) == is_defect


@pytest.mark.parametrize(
  ('arguments', 'name'),
  [(['convert', 'a', 'b', '--vocabulary', ''], 'vocabulary'), (['convert', '', 'b'], 'src')],
)
def test_an_empty_argument_is_wrong_usage(arguments, name, capsys):
  assert main.main(arguments) == 2
  assert capsys.readouterr().err == f'aya-train: error: convert: {name} is empty\n'


def test_an_unknown_command_is_wrong_usage():
  done = subprocess.run(
    [sys.executable, '-m', 'aya_train', 'tarin'], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert "invalid choice: 'tarin'" in done.stderr


def test_usage_imports_no_heavy_library():
  """`--help` answers at once; what a command needs is imported when it runs."""
  code = "import sys; from aya_train.cli import main; main.parser(); print(*sys.modules, sep='\\n')"
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60
  )
  loaded = {name.split('.')[0] for name in done.stdout.split()}
  assert 'aya_train' in loaded
  assert not loaded & {'flax', 'gin', 'grain', 'jax', 'numpy', 'seqio', 'tensorflow', 'torch'}


def test_every_command_describes_itself_and_its_arguments(capsys):
  for name, command in main.COMMANDS.items():
    with pytest.raises(SystemExit) as ended:
      main.main([name, '--help'])
    assert ended.value.code == 0
    assert command.SUMMARY in ' '.join(capsys.readouterr().out.split())
