"""Settings that the documentation tells, held against the parsed gin files.

Tables are found by their header (tests/docs/settings.py), sentences are listed here.
"""

import contextlib
import re
import shutil

import pytest

from aya_train import optimizer
from aya_train.tpu import topologies
from tests.docs import settings
from tests.docs.commands import PAGES, ROOT
from tests.docs.settings import Told

MACHINE = 'hardware/cpu_local.gin'
DEFAULTS = ('models/mt5.gin', 'recipes/sft.gin', MACHINE)
AYA = ('aya101.gin',)
# What the second column of a table tells of, by page or for every page.
COLUMNS = {
  'default': DEFAULTS,
  'docs/recipe.md value': AYA,
  'docs/tpu.md value': AYA,
}
# What a column named after a gin file tells of.
RECIPES = {
  f'{name}.gin': ('models/mt5.gin', f'recipes/{name}.gin', MACHINE)
  for name in (
    *('sft', 'sft_smoke', 'sft_aya', 'preference', 'reward', 'rloo', 'eval', 'infer'),
    *('embed', 'embed_gtr_pretrain', 'embed_gtr_finetune', 'embed_smoke'),
  )
}
RECIPES['lora.gin'] = ('models/mt5.gin', 'recipes/sft.gin', 'recipes/lora.gin', MACHINE)
# The least number of settings that the tables of a page must tell.
LEAST = {'docs/macros.md': 250, 'docs/mixtures.md': 3, 'docs/recipe.md': 25, 'docs/tpu.md': 6}
ABSENT = '-'
SMOKE = RECIPES['sft_smoke.gin']
XXL = ('models/mt5_xxl.gin', 'recipes/sft.gin', MACHINE)
# Page, a sentence with a group for each value, and the gin files and settings that they are.
SENTENCES = [
  ('README.md', r'([\d,]+) steps take 4 min', SMOKE, 'TRAIN_STEPS'),
  ('docs/recipe.md', r'`([^`]*)` learning rate', DEFAULTS, 'LEARNING_RATE_FACTORS'),
  ('docs/recipe.md', r'learning rate of (\S+), a batch', DEFAULTS, 'BASE_LEARNING_RATE'),
  ('docs/recipe.md', r'a batch of ([\d,]+), packing', DEFAULTS, 'BATCH_SIZE'),
  ('docs/recipe.md', r'dropout (\S+), a new seed', DEFAULTS, 'DROPOUT_RATE'),
  ('docs/recipe.md', r'a sum \(LOSS_\w+ (\w+)\)', DEFAULTS, 'LOSS_NORMALIZING_FACTOR'),
  ('docs/recipe.md', r'not required \(USE_CACHED_TASKS (\w+)\)', DEFAULTS, 'USE_CACHED_TASKS'),
  ('docs/recipe.md', r'With (\S+) a matrix moves', AYA, 'BASE_LEARNING_RATE'),
  ('docs/recipe.md', r"The smoke recipe's (\S+) is relative", SMOKE, 'BASE_LEARNING_RATE'),
  ('docs/recipe.md', r'a batch of ([\d,]+) packed rows', AYA, 'BATCH_SIZE'),
  ('docs/recipe.md', r'So ([\d,]+) steps are about', AYA, 'TRAIN_STEPS_RELATIVE'),
  ('docs/recipe.md', r"decay is 1 - t\^-(\S+),", AYA, 'optimizer.adafactor.decay_rate'),
  ('docs/tpu.md', r'mT5-xxl, (\d+) packed rows', AYA, 'BATCH_SIZE'),
  ('docs/tpu.md', r'full size: (\d+) packed rows', AYA, 'BATCH_SIZE'),
  ('docs/tpu.md', r'chip-hours for the ([\d,]+) steps', AYA, 'TRAIN_STEPS_RELATIVE'),
  ('docs/mixtures.md', r"sft_aya.gin` says DATA_LIC\w+ = `([^`]+)`", AYA, 'DATA_LICENSE_POLICY'),
  ('docs/mixtures.md', r"\*\*DATA_LIC\w+\*\* \(default `([^`]+)`", DEFAULTS, 'DATA_LICENSE_POLICY'),
  ('docs/macros.md', r"`VOCABULARY_FILE = ([^`]+)`", XXL, 'VOCABULARY_FILE'),
  ('docs/macros.md', r"mT5's ([\d,]+) rows", XXL, 't5_config.T5Config.vocab_size'),
  ('docs/macros.md', r'with a beam of (\d+)', DEFAULTS, 'NUM_BEAMS'),
  ('docs/running.md', r"mT5's own vocabulary, ([\d,]+) rows", XXL, 't5_config.T5Config.vocab_size'),
  ('docs/design.md', r'RELPOS_\w+ = (\w+), the default', DEFAULTS, 'RELPOS_BIAS_PER_LAYER'),
  ('launch/README.md', r"and `([^`]+)` as normalising factor", AYA, 'LOSS_NORMALIZING_FACTOR'),
  ('launch/README.md', r'`smoke.sh` trains ([\d,]+) steps', SMOKE, 'TRAIN_STEPS'),
]  # fmt: skip
# The same of lengths: two groups, tokens of inputs and of targets.
LENGTHS = [
  ('docs/tpu.md', r'mT5-xxl, \d+ packed rows of (\d+) \+ (\d+) tokens'),
  ('docs/tpu.md', r'full size: \d+ packed rows of (\d+) \+ (\d+) tokens'),
  ('launch/README.md', r'packing, ([\d,]+) \+ ([\d,]+) tokens'),
]


def with_rows_of_files(page: str) -> list[Told]:
  """What tables with the header `file` tell: a row for a gin file, a column for a setting."""
  text = (ROOT / page).read_text(encoding='utf-8')
  found = []
  for line, header, rows in settings.tables(text):
    names = [name for name in (cell.strip('`') for cell in header) if settings.NAME.fullmatch(name)]
    if names != [cell.strip('`') for cell in header] or header[0] != 'file' or len(names) < 3:
      continue
    for file, *row in rows:
      name = file.strip('`')
      if not (ROOT / 'gin' / name).is_file():
        continue
      last = (name,) if name.startswith('hardware/') else (MACHINE,)
      first = (name,) if name.startswith('models/') else ('models/mt5.gin',)
      for setting, cell in zip(names[1:], row, strict=True):
        found.append(Told(f'{page}:{line}', (*first, 'recipes/sft.gin', *last), setting, cell))
  return found


def told() -> list[Told]:
  """Every setting that the documentation tells."""
  found: list[Told] = []
  for page in PAGES:
    found += settings.of_columns(page, COLUMNS, RECIPES)
    found += with_rows_of_files(page)
  for page, pattern, gin_files, name in SENTENCES:
    with contextlib.suppress(ValueError):  # test_a_sentence_is_there
      [cell] = settings.sentence(page, pattern)
      found.append(Told(f'{page}: {pattern}', gin_files, name, cell))
  for page, pattern in LENGTHS:
    with contextlib.suppress(ValueError):
      inputs, targets = settings.sentence(page, pattern)
      cell = f'inputs {inputs}, targets {targets}'
      found.append(Told(f'{page}: {pattern}', AYA, 'TASK_FEATURE_LENGTHS', cell))
  return found


@pytest.mark.parametrize(('page', 'pattern'), [row[:2] for row in SENTENCES + LENGTHS])
def test_a_sentence_is_there(page, pattern):
  """Where a sentence was rewritten, its pattern follows."""
  assert settings.sentence(page, pattern)


@pytest.fixture(scope='module')
def values_of():
  """Values of gin files, each parsed once."""
  made = {}

  def values(gin_files):
    if gin_files not in made:
      made[gin_files] = settings.values(gin_files)
    return made[gin_files]

  return values


def value(values, name):
  """The value of a setting; parameters are found by the end of their name. KeyError if unknown."""
  if name in values:
    return values[name]
  [found] = [key for key in values if key.endswith(f'.{name}')] or [name]
  return values[found]


def wrong(found, values_of):
  """Settings that are told otherwise than they are."""
  problems = []
  for where, gin_files, name, cell in found:
    values = values_of(gin_files)
    try:
      actual = value(values, name)
    except KeyError:
      if cell != ABSENT:
        problems.append(f'{where}: {" ".join(gin_files)} have no {name}')
      continue
    if not settings.says(cell, actual):
      problems.append(f'{where}: {name} is {actual!r}, told is {cell!r}')
  return problems


def test_settings_are_those_of_the_gin_files(values_of):
  assert not wrong(told(), values_of)


@pytest.mark.parametrize('page', LEAST)
def test_the_tables_of_a_page_are_found(page):
  assert len([t for t in told() if t.where.startswith(f'{page}:')]) >= LEAST[page]


def test_no_table_of_settings_is_left_out(values_of):
  """A table whose first column names settings must say in its header of which files."""
  known = {name for name in values_of(AYA) if '.' not in name}
  read = {t.where for t in told()}
  for page in PAGES:
    for line, _, rows in settings.tables((ROOT / page).read_text(encoding='utf-8')):
      firsts = [set(re.sub('`', '', row[0]).split(', ')) for row in rows]
      if sum(first <= known for first in firsts) > 1:
        assert f'{page}:{line}' in read


def test_a_change_of_any_setting_is_noticed(values_of):
  """Each value changed alone: what is told must not fit any more."""
  unnoticed = []
  for found in told():
    try:
      actual = value(values_of(found.gin_files), found.name)
    except KeyError:
      continue
    if settings.says(found.cell, settings.changed(actual)):
      unnoticed.append(found)
  assert not unnoticed


def test_a_changed_gin_file_is_noticed(tmp_path, monkeypatch):
  """The same through the files: another mesh and another policy in a copy of gin/."""
  monkeypatch.chdir(tmp_path)  # files there come before those of the package
  shutil.copytree(ROOT / 'gin', tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'hardware/tpu_v4_128.gin'
  path.write_text(path.read_text().replace("'fsdp': 16", "'fsdp': 32"))
  path = tmp_path / 'hardware/tpu.gin'
  path.write_text(path.read_text().replace("'save_named'", "'full'"))
  found = [t for t in told() if 'aya101.gin' in t.gin_files]
  problems = wrong(found, settings.values)
  for page in ('docs/recipe.md', 'docs/tpu.md'):
    for name in ('MESH_SHAPE', 'REMAT_POLICY'):
      assert [p for p in problems if p.startswith(page) and f' {name} is' in p], (page, name)


def test_macros_md_tells_every_macro(values_of):
  page = 'docs/macros.md'
  rows = {}
  for t in settings.of_columns(page, COLUMNS, RECIPES):
    rows.setdefault(t.gin_files, set()).add(t.name)
  macros = {name for name in values_of(DEFAULTS) if '.' not in name}
  assert macros == rows[DEFAULTS]
  shared = {n: v for n, v in values_of(('models/mt5.gin', MACHINE)).items() if '.' not in n}
  for name in ('eval.gin', 'infer.gin'):
    own = {n: v for n, v in values_of(RECIPES[name]).items() if '.' not in n}
    assert {n for n, v in own.items() if n not in shared or shared[n] != v} <= rows[RECIPES[name]]
  for name in ('sft_smoke.gin', 'sft_aya.gin'):
    base = values_of(DEFAULTS)
    differ = {n for n, v in values_of(RECIPES[name]).items() if '.' not in n and base.get(n) != v}
    assert differ <= rows[RECIPES[name]]


def test_macros_md_tells_every_model_and_machine():
  files = {t for found in with_rows_of_files('docs/macros.md') for t in found.gin_files}
  for folder, least in (('models', 6), ('hardware', 14)):
    there = {f'{folder}/{path.name}' for path in (ROOT / 'gin' / folder).glob('*.gin')}
    assert len(there) >= least
    assert there <= files | {'models/mt5.gin'}


def test_macros_that_the_text_names_exist(values_of):
  """All words in capitals that are bound on a command line or have a value in the text."""
  known = set(values_of(DEFAULTS))
  recipes = ('eval', 'infer', 'embed', 'lora', 'preference', 'reward', 'rloo')
  for recipe in (f'{name}.gin' for name in recipes):
    known |= set(values_of(RECIPES[recipe]))
  for page in PAGES:
    text = (ROOT / page).read_text(encoding='utf-8')
    named = set(re.findall(r'--gin\.([A-Z][A-Z0-9_]+)=', text))
    named |= set(re.findall(r'`([A-Z][A-Z0-9]*_[A-Z0-9_]+) = ', text))
    assert named - {'NAME'} <= known, page


def test_the_page_of_the_recipe_names_its_three_files():
  [names] = settings.sentence('docs/recipe.md', r'`gin/aya101.gin` includes (.+?)\. ')
  includes = re.findall(r"^include '(.+)'", (ROOT / 'gin/aya101.gin').read_text(), re.MULTILINE)
  assert re.findall(r'`(.+?)`', names) == includes


def test_tpu_files_keep_the_names_that_the_model_keeps():
  """`hardware/tpu.gin` repeats them, so that no order of the gin files changes them."""
  found = [
    re.findall(r'^REMAT_SAVE_NAMES = (.+)', (ROOT / 'gin' / name).read_text(), re.MULTILINE)
    for name in ('models/mt5.gin', 'hardware/tpu.gin')
  ]
  assert len(found[0]) == 1
  assert found[0] == found[1]


def test_options_of_adafactor_are_those_that_the_recipe_leaves(values_of):
  told_ = settings.sentence(
    'docs/recipe.md',
    r'clipping (\S+), parameter scale (on|off), factored from (\d+) x (\d+), '
    r'(no momentum)?, (no weight decay)?',
  )
  options = settings.parameters(optimizer.adafactor)
  bound = {n.split('.')[-1]: v for n, v in values_of(AYA).items() if n.startswith('optimizer.ada')}
  options |= bound
  assert told_ == (
    str(options['clipping_threshold']),
    'on' if options['multiply_by_parameter_scale'] else 'off',
    *[str(options['min_dim_size_to_factor'])] * 2,
    'no momentum' if options['beta1'] is None else None,
    'no weight decay' if options['weight_decay_rate'] is None else None,
  )


def test_slices_are_those_of_the_hardware_files(values_of):
  text = (ROOT / 'docs/tpu.md').read_text(encoding='utf-8')
  header = ['file', 'model', 'microbatches']
  [found] = [rows for _, names, rows in settings.tables(text) if names[:3] == header]
  files = {path.stem for path in (ROOT / 'gin/hardware').glob('tpu_*.gin')}
  of_adapters = {'tpu_v5e_1', 'tpu_v6e_1', 'tpu_v5p_1x1x1'}  # one chip: docs/lora.md
  assert {row[0].strip('`') for row in found} == files - of_adapters
  for name, model, parts, memory, *_ in found:
    name = name.strip('`')
    values = values_of((f'models/mt5_{model}.gin', 'recipes/sft_aya.gin', f'hardware/{name}.gin'))
    assert int(re.match(r'\d+', parts)[0]) == (values['NUM_MICROBATCHES'] or 1), name
    assert ('full remat' in parts) == (values['REMAT_POLICY'] == 'full'), name
    usable = topologies.get(name).chip.usable_hbm / topologies.GIB
    assert float(memory.split(' of ')[1].split()[0]) == pytest.approx(usable, abs=0.005), name


# Options of pip, ruff, kubectl, gcloud, Beam and llama.cpp.
OF_OTHERS = {
  *('--gin', '--help', '--check', '--constraint', '--editable', '--from-env-file'),
  *('--service-account', '--project', '--region', '--temp_location', '--max_num_workers'),
  *('--flink_master', '--environment_type', '--temp'),
  *('--copy_files', '--quantization'),  # of CTranslate2's converter
}


def test_options_that_the_text_names_exist():
  """Each `--option` in the text is one of aya-train, of a launcher, or of a program named here."""
  known = set()
  paths = [
    *(ROOT / 'aya_train/cli').glob('*.py'),
    ROOT / 'launch/tpu_pod',
    ROOT / 'launch/gke/apply',
  ]
  for path in [*paths, *(ROOT / 'launch').glob('*.sh')]:
    known |= set(re.findall(r'--[a-z_]+', path.read_text(encoding='utf-8')))
  for folder in ('benchmarks', 'examples', 'tests/faults/fuzz'):
    for path in (ROOT / folder).glob('*.py'):
      known |= set(re.findall(r"'(--[a-z_]+)'", path.read_text(encoding='utf-8')))
  for page in PAGES:
    text = (ROOT / page).read_text(encoding='utf-8')
    assert set(re.findall(r'(?<![\w-])--[a-z][a-z_-]+', text)) <= known | OF_OTHERS, page
