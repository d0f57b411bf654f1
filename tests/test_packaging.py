"""The package as others get it: wheel and source distribution, installed and used elsewhere.

Nothing is downloaded: the installed wheel finds its dependencies in the environment of the tests.
"""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
# What a build reads; more, such as an old build/, would hide what it lacks.
SOURCES = (
  *('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'CHANGELOG.md', 'LICENSE'),
  *('CITATION.cff', 'constraints.txt', 'aya_train', 'gin', 'tasks', 'tests', 'docs', 'examples'),
)


def python(*words, folder, program=sys.executable):
  """What a program of Python prints, started in `folder` and knowing nothing of the checkout."""
  env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'AYA_TRAIN_'))}
  done = subprocess.run(
    [program, *words], cwd=folder, env=env, text=True, capture_output=True, check=False
  )
  assert done.returncode == 0, f'{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
  return done.stdout


def build(kind, source, target):
  """Builds 'wheel' or 'sdist' by PEP 517, as `python -m build --no-isolation` does."""
  target.mkdir(exist_ok=True)
  code = f'from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})'
  python('-c', code, folder=source)
  [made] = target.iterdir()
  return made


def contents(wheel):
  """Bytes of each file of a wheel, without the list of its own files."""
  with zipfile.ZipFile(wheel) as archive:
    return {name: archive.read(name) for name in archive.namelist() if not name.endswith('/RECORD')}


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """A copy of what the checkout holds, links as links."""
  pytest.importorskip('setuptools', '77', reason='the build needs setuptools 77 (the extra test)')
  folder = tmp_path_factory.mktemp('checkout')
  made = shutil.ignore_patterns('__pycache__', '*.egg-info')
  for name in SOURCES:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=made)
    else:
      shutil.copy(ROOT / name, folder)
  return folder


@pytest.fixture(scope='module')
def wheel(checkout, tmp_path_factory):
  return build('wheel', checkout, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def sdist(checkout, tmp_path_factory):
  return build('sdist', checkout, tmp_path_factory.mktemp('sdist'))


@pytest.fixture(scope='module')
def metadata(wheel):
  [text] = [data for name, data in contents(wheel).items() if name.endswith('/METADATA')]
  return email.message_from_bytes(text)


DATA = {'.css', '.html', '.jinja', '.js', '.py', '.toml', '.tsv', '.txt', '.typed', '.yaml'}


def shipped(folder, suffixes):
  return {path.relative_to(folder) for path in folder.rglob('*') if path.suffix in suffixes}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
  code = shipped(ROOT / 'aya_train', DATA)
  wanted = {f'aya_train/{path}' for path in code}
  wanted |= {f'aya_train/tasks/{path}' for path in shipped(ROOT / 'tasks', {'.py', '.yaml'})}
  wanted |= {f'aya_train/configs/{path}' for path in shipped(ROOT / 'gin', {'.gin'})}
  held = contents(wheel)
  about = {name for name in held if '.dist-info/' in name}
  assert set(held) - about == wanted
  assert [name for name in about if name.endswith('/licenses/LICENSE')]


def test_the_source_distribution_needs_no_links_and_has_no_tests(sdist):
  with tarfile.open(sdist) as archive:
    members = {m.name.partition('/')[2]: m for m in archive.getmembers()}
  assert not [name for name, member in members.items() if member.issym() or member.islnk()]
  assert not [name for name in members if name.partition('/')[0] == 'tests']
  wanted = {'LICENSE', 'README.md', 'CHANGELOG.md', 'CITATION.cff', 'constraints.txt', 'setup.py'}
  wanted |= {
    f'{folder}/{path}'
    for folder in ('docs', 'examples')
    for path in shipped(ROOT / folder, {'.md', '.png', '.py', '.csv', '.ipynb'})
  }
  assert wanted <= set(members)


def test_the_source_distribution_builds_the_same_wheel(sdist, wheel, tmp_path):
  with tarfile.open(sdist) as archive:
    archive.extractall(tmp_path, filter='data')
  [source] = tmp_path.iterdir()
  again = build('wheel', source, tmp_path / 'wheel')
  assert again.name == wheel.name
  assert contents(again) == contents(wheel)


USE = """
  import pathlib
  import sys

  import aya_train
  from aya_train import config, tasks
  from aya_train.tasks import catalog
  import seqio

  home = pathlib.Path(aya_train.__file__).parent
  assert sys.prefix in str(home) and sys.prefix in str(pathlib.Path(tasks.__file__)), home
  lost = [s.name for s in catalog.SOURCES if not any(
    name.startswith(s.name) for name in seqio.TaskRegistry.names()
  )]
  assert not lost, lost
  recipes = sorted(path.name for path in (home / 'configs/recipes').iterdir())
  for recipe in recipes:
    config.parse(
      ['models/mt5_base.gin', f'recipes/{recipe}', 'hardware/cpu_local.gin'], require_all=False
    )
    print(recipe)
"""


def use(program, folder):
  """Uses an installed package from a folder in which nothing is."""
  folder.mkdir()
  commands = python('-m', 'aya_train', '--help', folder=folder, program=program)
  script = pathlib.Path(program).parent / 'aya-train'
  assert script.read_text().startswith(f'#!{program}')
  assert python(script, '--help', folder=folder, program=program) == commands
  help_text = python(script, 'prepare', '--help', folder=folder, program=program)
  assert '--gin' in help_text
  read = python('-c', textwrap.dedent(USE), folder=folder, program=program).split()
  assert read == sorted(path.name for path in (ROOT / 'gin/recipes').iterdir())


def make_environment(folder, with_pip):
  venv.create(folder, with_pip=with_pip)
  return str(folder / 'bin/python')


def test_an_installed_wheel_works_in_another_folder(wheel, tmp_path):
  program = make_environment(tmp_path / 'venv', with_pip=False)
  words = ('--python', program, 'install', '--quiet', '--no-deps', '--no-index', str(wheel))
  python('-m', 'pip', *words, folder=tmp_path)
  [site] = (tmp_path / 'venv').glob('lib/python*/site-packages')
  dependencies = [path for path in sys.path if path.endswith('-packages')]
  (site / 'dependencies.pth').write_text('\n'.join(dependencies))
  use(program, tmp_path / 'elsewhere')


@pytest.mark.heavy
def test_a_fresh_environment_gets_what_it_needs(wheel, tmp_path):
  """Downloads the dependencies, without those of the extras."""
  program = make_environment(tmp_path / 'venv', with_pip=True)
  words = ('install', '--quiet', '--constraint', str(ROOT / 'constraints.txt'), str(wheel))
  python('-m', 'pip', *words, folder=tmp_path, program=program)
  use(program, tmp_path / 'elsewhere')


def test_the_citation_is_valid_and_of_this_version(metadata):
  """What the Citation File Format 1.2.0 requires, and what is said elsewhere too."""
  cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
  assert cited['cff-version'] == '1.2.0'
  assert cited['message'] and cited['title'] == metadata['Name']
  assert all('name' in a or {'family-names', 'given-names'} <= set(a) for a in cited['authors'])
  assert cited['version'] == metadata['Version']
  assert cited['license'] == metadata['License-Expression']


def test_the_changelog_begins_with_this_version(metadata):
  text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  versions = re.findall(r'^## \[(\d\S*)\]', text, flags=re.MULTILINE)
  assert versions[0] == metadata['Version']
