"""Tables of settings in the documentation, held against the gin files."""

import re

import gin
import pytest

from aya_train import config
from tests.docs.commands import PAGES, ROOT

DEFAULTS = ('models/mt5_base.gin', 'recipes/sft.gin', 'hardware/cpu_local.gin')
# Page, words of the table's header, gin files, the least number of settings to be found.
TABLES = [
  ('README.md', ('macro', 'default'), DEFAULTS, 45),
  ('docs/mixtures.md', ('macro', 'default'), DEFAULTS, 3),
  ('docs/recipe.md', ('setting', 'value'), ('aya101.gin',), 20),
  ('docs/tpu.md', ('setting', 'value'), ('aya101.gin',), 5),
]
# Values that are said in words.
WORDS = {
  '%gin.REQUIRED': ('required',),
  '%MIXTURE_OR_TASK_NAME': ('that of training',),
  '%BATCH_SIZE': ('BATCH_SIZE',),
  '@features.SharedVocabulary()': ('see `mt5.gin`',),
  '@optimizer.adafactor': ('see `mt5.gin`',),
  '@seq2seq.EncoderDecoderModel()': ('see `mt5.gin`',),
  '@infer_eval.InferEvalConfig()': ('see `sft.gin`',),
}
# Macros whose value each hardware or model file sets.
BY_FILE = {
  'MESH_SHAPE': 'hardware file',
  'NUM_MICROBATCHES': 'hardware file',
  'PARTITIONER': 'hardware file',
  'VOCABULARY_FILE': "None, or mT5's",
}
# Options of pip, ruff, kubectl, gcloud and Beam.
OF_OTHERS = {
  *(
    '--gin',
    '--help',
    '--check',
    '--constraint',
    '--editable',
    '--from-env-file',
    '--service-account',
  ),
  *('--project', '--region', '--temp_location', '--max_num_workers'),
  *('--flink_master', '--environment_type'),
}


def rows(page: str, header: tuple[str, ...]) -> list[list[str]]:
  """Cells of the rows of all tables of a page whose header begins with these words."""
  found, inside = [], False
  for line in (ROOT / page).read_text(encoding='utf-8').splitlines():
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if not line.startswith('|'):
      inside = False
    elif tuple(cells[: len(header)]) == header:
      inside = True
    elif inside and not set(line) <= set('|-'):
      found.append(cells)
  return found


def settings(page: str, header: tuple[str, ...]) -> dict[str, str]:
  """What the tables say of each macro, and of each parameter of the optimizer."""
  found = {}
  for cells in rows(page, header):
    names = re.findall(r'\b(?:[A-Z][A-Z0-9_]+|decay_rate|step_offset)\b', cells[0])
    values = re.split(r', (?![^{(]*[})])(?!\d{3}\b)', cells[1].replace('**', ''))
    for i, name in enumerate(names):
      found[name] = values[i] if len(values) == len(names) else cells[1]
  return found


def numbers(cell: str) -> list[float]:
  return [float(x.replace(',', '')) for x in re.findall(r'-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?', cell)]


def says(cell: str, value: object) -> bool:
  """Whether a cell gives a value: 30,000, 1e-4, `'constant'`, None, `{'data': 4}` or data 4."""
  if isinstance(value, bool) or value is None:
    return str(value) in cell
  if isinstance(value, int | float):
    return float(value) in numbers(cell)
  if isinstance(value, dict) and value:
    return all(re.search(rf'{name}\W+{size}\b', cell) for name, size in value.items())
  return any(word in cell for word in WORDS.get(str(value), (str(value),)))


@pytest.fixture
def parsed():
  """Parses gin files; gives their macros, and the optimizer's parameters, references as text."""

  def parse(gin_files):
    config.parse(gin_files, require_all=False)
    names = ('decay_rate', 'step_offset')
    more = {name: gin.query_parameter(f'optimizer.adafactor.{name}') for name in names}
    return more | config.written_macros(gin.config_str())

  yield parse
  gin.clear_config()


@pytest.mark.parametrize(('page', 'header', 'gin_files', 'least'), TABLES)
def test_settings_are_those_of_the_gin_files(parsed, page, header, gin_files, least):
  values = parsed(gin_files)
  told = settings(page, header)
  assert len(told) >= least
  wrong = {
    name: (cell, values.get(name, 'no such macro'))
    for name, cell in told.items()
    if name not in values or not (says(cell, values[name]) or BY_FILE.get(name, 'no words') in cell)
  }
  assert not wrong


def test_every_macro_of_the_recipes_is_told_somewhere(parsed):
  text = '\n'.join((ROOT / page).read_text(encoding='utf-8') for page in PAGES)
  assert not [name for name in parsed(DEFAULTS) if name not in text]


def test_macros_that_the_text_names_exist(parsed):
  """All words in capitals with an underscore that are bound on a command line."""
  known = set(parsed(DEFAULTS))
  for recipe in ('eval', 'infer'):
    known |= set(parsed(('models/mt5_base.gin', f'recipes/{recipe}.gin')))
  for page in PAGES:
    named = set(re.findall(r'--gin\.([A-Z][A-Z0-9_]+)=', (ROOT / page).read_text(encoding='utf-8')))
    assert named - {'NAME'} <= known, page


def test_slices_are_those_of_the_hardware_files(parsed):
  found = rows('docs/tpu.md', ('file', 'model', 'microbatches'))
  assert len(found) >= 10
  for name, model, parts, *_ in found:
    values = parsed(
      (f'models/mt5_{model}.gin', 'recipes/sft_aya.gin', f'hardware/{name[1:-1]}.gin')
    )
    assert numbers(parts)[0] == (values['NUM_MICROBATCHES'] or 1), name
    assert ('full remat' in parts) == (values['REMAT_POLICY'] == 'full'), name


def test_options_that_the_text_names_exist():
  """Each `--option` in the text is one of aya-train, of a launcher, or of a program named here."""
  known = set()
  paths = [ROOT / path for path in ('launch/tpu_pod', 'launch/gke/apply', 'launch/smoke.sh')]
  for path in [*(ROOT / 'aya_train/cli').glob('*.py'), *paths]:
    known |= set(re.findall(r'--[a-z_]+', path.read_text(encoding='utf-8')))
  for path in (ROOT / 'benchmarks').glob('*.py'):
    known |= set(re.findall(r"'(--[a-z_]+)'", path.read_text(encoding='utf-8')))
  for page in PAGES:
    text = (ROOT / page).read_text(encoding='utf-8')
    assert set(re.findall(r'(?<![\w-])--[a-z][a-z_-]+', text)) <= known | OF_OTHERS, page
