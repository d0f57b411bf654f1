import json

import gin
import pytest
import seqio

from aya_train import config
from aya_train.cli import main
from aya_train.report import run_page
from aya_train.tasks import features
from aya_train.tasks.mixtures import aya_mixtures, source_mixture

GIN = """
import tasks_of_gin

MIXTURE_OR_TASK_MODULE = 'tasks_of_a_run'
MIXTURE_OR_TASK_NAME = 'mixture_of_a_run'
MIXTURE_WITHIN_SOURCE = 'uniform'
VOCABULARY_FILE = '/of/the/run.model'
"""
REGISTERS = """
import seqio
seqio.MixtureRegistry.add('mixture_of_{}', [('cldr', 1)])
"""


@pytest.fixture(autouse=True)
def clean():
  yield
  gin.clear_config()
  features.set_vocabulary(None)
  aya_mixtures.configure(source_mixture.MixtureSettings())
  for name in ('mixture_of_a_run', 'mixture_of_gin'):
    if name in seqio.MixtureRegistry.names():
      seqio.MixtureRegistry.remove(name)


@pytest.fixture
def model_dir(tmp_path, monkeypatch):
  modules = tmp_path / 'modules'
  modules.mkdir()
  for name in ('a_run', 'gin'):
    (modules / f'tasks_of_{name}.py').write_text(REGISTERS.format(name))
  monkeypatch.syspath_prepend(str(modules))
  folder = tmp_path / 'run'
  folder.mkdir()
  (folder / 'config.gin').write_text(GIN)
  (folder / 'run.json').write_text(json.dumps({'first_step': 0}))
  (folder / 'metrics.jsonl').write_text(json.dumps({'step': 1, 'kind': 'train'}) + '\n')
  return folder


@pytest.fixture
def shown(monkeypatch):
  """What the page is asked for, instead of a page."""
  asked = []
  monkeypatch.setattr(run_page, 'write', lambda run, **kwargs: asked.append((run, kwargs)))
  return asked


def test_the_tasks_of_the_run_are_set_up_as_it_was_trained(model_dir, shown):
  before = config.text()
  assert main.main(['report', str(model_dir), '--prompts=3']) == 0
  ((run, options),) = shown
  assert run.macro('MIXTURE_OR_TASK_NAME') == 'mixture_of_a_run'
  assert options == {'hf_dir': None, 'num_prompts': 3}
  assert {'mixture_of_a_run', 'mixture_of_gin'} <= set(seqio.MixtureRegistry.names())
  assert features.vocabulary_file() == '/of/the/run.model'
  assert source_mixture.settings().within_source == 'uniform'
  assert config.text() == before


def test_tables_that_are_not_here_cost_no_page(model_dir, shown, caplog):
  (model_dir / 'config.gin').write_text(f"{GIN}\nDATASET_TABLES = ('nowhere.tsv',)\n")
  assert main.main(['report', str(model_dir)]) == 0
  assert len(shown) == 1
  assert 'the data of the run is not all at hand' in caplog.text


def test_a_module_of_ours_that_has_moved_since_costs_no_page(model_dir, shown):
  (model_dir / 'config.gin').write_text(f'from aya_train import moved_since\n{GIN}')
  assert main.main(['report', str(model_dir)]) == 0
  assert len(shown) == 1


def test_tasks_that_cannot_be_imported_are_told(model_dir, shown, capsys):
  (model_dir / 'config.gin').write_text('import no_such_tasks\n')
  assert main.main(['report', str(model_dir)]) == 1
  assert "config.gin 'no_such_tasks' cannot be imported" in capsys.readouterr().err
  assert not shown


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      ['runs/x', '--output', 'x.html'],
      '--output counts for reports of data and eval and preference',
    ),
    (['runs/x', '--json', 'x.json'], '--json counts for reports of eval, and this is of a run'),
    (['data', 'x', '--hf', 'y'], '--hf counts for reports of a run, and this is of data'),
    (['eval', 'x', '--budget', '3'], '--budget counts for reports of data, and this is of eval'),
  ],
)
def test_an_option_that_would_count_for_nothing_is_refused(capsys, words, message):
  assert main.main(['report', *words]) == 1
  assert message in capsys.readouterr().err
