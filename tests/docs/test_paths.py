"""Every file, folder, module, link and test that the documentation names is there."""

import importlib
import re

import pytest

from tests.docs import commands, settings
from tests.docs.commands import PAGES, ROOT

# Files of other projects, and files that commands or readers make.
OF_OTHERS = {
  *('configs/runs/finetune.gin', 'examples/t5/mt5/base.gin', 'finetune.gin', 'mt5/base.gin'),
  *('adafactor.py', 't5x/adafactor.py', 'losses.py', 'network.py'),
  *('gin/__init__.py', '__init__.py'),  # must not be there
  *('config.gin', 'operative_config.gin', 'model.gin'),  # of a run, and of a conversion
  *('datasets.toml', 'translated/datasets.toml'),  # of a translation
}
_SUFFIXES = 'py|gin|sh|md|toml|txt|ipynb|csv|jinja|cfg'
_FILE = re.compile(rf'(?<![\w./*<-])((?:\.?[\w-]+/)*\.?[\w-]+\.(?:{_SUFFIXES}))(?![\w/])')
_FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != '.')
_FOLDER = re.compile(rf'(?<![\w./:-])((?:{"|".join(_FOLDERS)})(?:/[\w.-]+)*/)(?![\w<*])')
_MODULE = re.compile(r'\baya_train(?:\.\w+)+')
_LINK = re.compile(r'\]\(([^)#\s]*)(?:#([^)\s]+))?\)')
# Where a name may begin: the root, the gin files, the package, the tests, the page's folder.
_PLACES = ('', 'gin', 'gin/recipes', 'aya_train', 'tests', 'launch', 'docs')


def text_of(page: str) -> str:
  """A page without what it shows to be executed: that is tested by being executed."""
  text = (ROOT / page).read_text(encoding='utf-8')
  lines = text.splitlines()
  for start, language, body in commands.blocks(page, text):
    if language:
      count = body.count('\n') + 1
      lines[start - 1 : start - 1 + count] = [''] * count
  return '\n'.join(lines)


def shown_files() -> set[str]:
  """Files that the documentation lets a reader write."""
  shown = commands.everything()
  made = {s.file for s in shown if s.kind == 'file'}
  for s in shown:
    made |= set(re.findall(r'(?<!<)> ?([\w./-]+)', s.text)) if s.kind == 'command' else set()
  return made | {name.rpartition('/')[2] for name in made}


def stands(name: str, page: str) -> bool:
  """Whether a file or folder is there, seen from one of the places or from the page."""
  places = [ROOT / place for place in _PLACES] + [(ROOT / page).parent]
  return any((place / name).exists() for place in places)


def is_unique_file(name: str) -> bool:
  found = [
    path
    for folder in ('aya_train', 'tasks', 'gin', 'launch', 'tests', 'benchmarks', 'examples')
    for path in (ROOT / folder).rglob(name)
    if not (ROOT / folder).is_symlink()
  ]
  return '/' not in name and len(found) == 1


@pytest.mark.parametrize('page', PAGES)
def test_files_that_a_page_names_are_there(page):
  text, made = text_of(page), shown_files()
  named = set(_FILE.findall(text)) - OF_OTHERS - made
  assert not [name for name in named if not (stands(name, page) or is_unique_file(name))]


@pytest.mark.parametrize('page', PAGES)
def test_folders_that_a_page_names_are_there(page):
  named = set(_FOLDER.findall(text_of(page)))
  assert not [name for name in named if not stands(name, page)]


def test_folders_of_the_map_are_there():
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  [listing] = re.findall(r'## Map\n\n```\n(.*?)```', text, re.DOTALL)
  top = ''
  for line in listing.splitlines():
    names = re.match(r'\s*((?:[\w.]+/\s)+)', line)
    assert names, line
    for name in names[1].split():
      top = top if line.startswith(' ') else name
      path = ROOT / top / name if line.startswith(' ') else ROOT / name
      assert path.is_dir(), line
    for name in re.findall(r'(?<=[ ,])(\w+/)', line[names.end() :]):
      assert (ROOT / top / name).is_dir() or (ROOT / name).is_dir(), line
    for name in re.findall(r'\w+\.(?:py|sh|gin)', line[names.end() :]):
      assert (ROOT / top / name).is_file(), line


@pytest.mark.parametrize('page', PAGES)
def test_modules_and_functions_that_a_page_names_are_there(page):
  for name in sorted(set(_MODULE.findall((ROOT / page).read_text(encoding='utf-8')))):
    parts = name.split('.')
    for end in range(len(parts), 0, -1):
      try:
        found = importlib.import_module('.'.join(parts[:end]))
      except ModuleNotFoundError:
        continue
      break
    for part in parts[end:]:
      assert hasattr(found, part), f'{page}: {name}'
      found = getattr(found, part)


def anchors(page: str) -> set[str]:
  """Anchors of the headings of a page, as GitHub makes them."""
  text = re.sub(r'```.*?```', '', (ROOT / page).read_text(encoding='utf-8'), flags=re.DOTALL)
  heads = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
  for target, anchor in _LINK.findall((ROOT / page).read_text(encoding='utf-8')):
    if '://' in target:
      continue
    path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
    assert path.exists(), f'{page}: {target}'
    if anchor:
      name = str(path.relative_to(ROOT))
      assert anchor in anchors(name), f'{page}: {target}#{anchor}, {name} has {anchors(name)}'


def test_tests_of_the_laws_are_there():
  text = (ROOT / 'docs/design.md').read_text(encoding='utf-8')
  [rows] = [rows for _, header, rows in settings.tables(text) if header == ['law', 'where']]
  named = [name for row in rows for name in re.findall(r'`([\w/]*test_\w+)`', row[1])]
  assert len(named) > len(rows)
  assert not [name for name in named if not (ROOT / 'tests' / f'{name}.py').is_file()]


# What an outsider looks for -> its file. From the README it may take three hops.
SOUGHT = {
  'the loss': 'aya_train/losses.py',
  'the mesh': 'aya_train/partitioning.py',
  'the mixture': 'tasks/mixtures/aya_mixtures.py',
  'packing': 'aya_train/data/packing.py',
  'names in Hugging Face': 'aya_train/checkpoint/names.py',
}


@pytest.mark.parametrize('sought', SOUGHT)
def test_a_file_that_is_looked_for_is_three_links_from_the_readme_at_most(sought):
  assert (ROOT / SOUGHT[sought]).is_file()
  reached = {'README.md'}
  for _ in range(3):
    pages = [name for name in reached if name.endswith('.md') and (ROOT / name).is_file()]
    for page in pages:
      links = _LINK.findall((ROOT / page).read_text(encoding='utf-8'))
      paths = [((ROOT / page).parent / target).resolve() for target, _ in links if target]
      reached |= {str(path.relative_to(ROOT)) for path in paths if path.is_relative_to(ROOT)}
  assert SOUGHT[sought] in reached


def test_names_of_modules_are_unique():
  names = [
    path.name
    for folder in ('aya_train', 'tasks')
    for path in (ROOT / folder).rglob('*.py')
    if not path.name.startswith('__')
  ]
  assert not {name for name in names if names.count(name) > 1}
  assert not {'utils.py', 'common.py', 'helpers.py'} & set(names)
