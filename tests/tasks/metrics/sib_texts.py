"""SIB-200's texts, the same sentences in 94 languages, where they lie beside the checkout."""

import csv
import functools
import pathlib

import pytest

SHARED = pathlib.Path(__file__).parents[4] / 'shared/data'
FOLDER = SHARED / 'sib200'
needs_them = pytest.mark.skipif(not FOLDER.exists(), reason='no SIB-200 beside the checkout')


def languages() -> list[str]:
  """FLORES-200 codes."""
  return sorted(folder.name for folder in FOLDER.glob('*_*')) if FOLDER.exists() else []


@functools.cache
def texts(language: str) -> list[str]:
  with (FOLDER / language / 'dev.tsv').open(encoding='utf-8', newline='') as file:
    return [row['text'] for row in csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE)]
