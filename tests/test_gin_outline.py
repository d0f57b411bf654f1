"""Laws of what is read of gin files before anything is imported."""

import contextlib
import re

import pytest

from aya_train import config, gin_outline

# Those for T5X include files of T5X.
SHIPPED = sorted(str(p) for p in config.CONFIGS.glob('*/*.gin') if p.parent.name != 't5x')
BASE = "from nowhere import nothing\ninclude 'sizes.gin'\nMODEL_DIR = %gin.REQUIRED\n"


@pytest.fixture
def files(tmp_path):
  def write(**texts):
    for name, text in texts.items():
      (tmp_path / f'{name}.gin').write_text(text)
    return lambda *bindings, **options: gin_outline.check(
      [f'{next(iter(texts))}.gin'], bindings, [str(tmp_path)], **options
    )

  return write


def test_modules_are_not_imported_and_includes_are_followed(files):
  checked = files(base=BASE, sizes='STEPS = %gin.REQUIRED\n')
  with pytest.raises(ValueError, match='without a value: MODEL_DIR, STEPS; give each'):
    checked()
  with pytest.raises(ValueError, match='without a value: STEPS;'):
    checked('MODEL_DIR = "x"')
  assert checked('MODEL_DIR = "x"', 'STEPS = 3') is None
  assert checked(require_all=False) is None


def test_the_last_value_counts(files):
  checked = files(base=BASE + "MODEL_DIR = 'x'\n", sizes='MODEL_DIR = %gin.REQUIRED\n')
  assert checked() is None
  with pytest.raises(ValueError, match='without a value: MODEL_DIR;'):
    checked('MODEL_DIR = %gin.REQUIRED')


@pytest.mark.parametrize('require_all', [True, False])
def test_a_file_that_is_nowhere_is_told_with_who_includes_it(files, require_all):
  checked = files(base=BASE)
  with pytest.raises(FileNotFoundError, match=r"no gin file 'sizes.gin', which base.gin includes"):
    checked(require_all=require_all)


def test_a_binding_may_include_a_file_whose_macros_follow(files):
  checked = files(base='A = 1\n', more='B = 2\n')
  assert checked("include 'more.gin'", 'A = 3') is None
  with pytest.raises(ValueError, match=r'unknown gin macro AA: .*did you mean A'):
    checked('AA = 3')


@pytest.mark.parametrize(
  'text', ['A = = 2\nMODEL_DIR = %gin.REQUIRED\n', "include 'base.gin'\nB = %gin.REQUIRED\n", '(']
)
def test_what_is_no_gin_is_left_to_gin(files, text):
  assert files(base=text)('C = 3') is None


def test_a_required_value_that_a_text_names_is_none(files):
  assert files(base="MODEL_DIR = '%gin.REQUIRED'\n")() is None


@pytest.mark.parametrize('path', SHIPPED)
def test_it_finds_what_gin_finds_missing_in_every_file_that_comes_with_the_package(path):
  config.parse([path], require_all=False)
  required = re.search(r'^[A-Z_0-9]+ = %gin.REQUIRED$', config.text(), re.MULTILINE)
  wrong = pytest.raises(ValueError, match='required macros') if required else None
  with wrong or contextlib.nullcontext():
    gin_outline.check([path], [], [])
