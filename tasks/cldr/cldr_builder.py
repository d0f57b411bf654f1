"""TFDS builder of the CLDR instruction set; it needs no network."""

import contextlib
import functools
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import babel
import tensorflow_datasets as tfds
from etils import epath

from aya_train.tasks import storage
from aya_train.tasks.building import local_info
from aya_train.tasks.cldr import cldr_facts, cldr_rows

MANIFEST = 'manifest.json'

_DESCRIPTION = """
Instructions with short answers in the languages of Aya-101 that CLDR covers (two lack: Haitian
Creole and Samoan), true by construction: names of territories, languages, currencies, cities,
months and weekdays; legal tender; official languages; formats of dates, numbers, percentages,
lists and measures; and which language, kind of name or script a text is. Instructions are English
and name the language. Answers come from each locale's own CLDR tables (through Babel), never from
inherited ones. Split by entity: what a validation or test row asks about, no training row of any
language asks about (a held-out month still occurs in dates, and as the neighbour of another).
language_code is that of the answer, and for the identify kinds that of the text.
It shows that training, balancing and scripts work; it does not teach following instructions.
"""

_CITATION = """
@misc{cldr,
  title = {Unicode Common Locale Data Repository},
  author = {{Unicode Consortium}},
  howpublished = {\\url{https://cldr.unicode.org}},
  note = {read through Babel, \\url{https://babel.pocoo.org}}
}
"""


class CldrInstructions(tfds.core.GeneratorBasedBuilder):
  """The columns of the Aya Dataset and `kind`, all strings; splits train, validation, test."""

  name = 'cldr_instructions'
  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES: ClassVar[dict[str, str]] = {
    '1.0.0': 'CLDR 47, Babel 2.18.0.',
    '1.1.0': 'Further training rows of the kinds that follow rules; the other rows are the same.',
  }
  # Nothing is downloaded. TFDS would look for a checksum file with importlib_resources, which it
  # does not declare for this Python.
  url_infos: ClassVar[dict[str, Any]] = {}

  def __init__(self, *, languages: Sequence[str] | None = None, **kwargs: Any):
    """`languages`: ISO 639-3 codes of a smaller set; default: all that CLDR covers."""
    self._languages = languages
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return local_info.LocalInfo(
      builder=self,
      description=_DESCRIPTION,
      features=tfds.features.FeaturesDict(
        {column: tfds.features.Text() for column in cldr_rows.COLUMNS}
      ),
      supervised_keys=('inputs', 'targets'),
      homepage='https://cldr.unicode.org',
      citation=_CITATION,
      license='Unicode-3.0 (CLDR data); BSD-3-Clause (Babel, which carries it)',
    )

  @functools.cached_property
  def rows(self) -> list[cldr_rows.CldrRow]:
    """All rows in a fixed order."""
    return cldr_rows.rows(self._languages)

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, str]]]]:
    del dl_manager  # nothing is downloaded
    storage.claim(self.data_path)
    return {split: self._generate_examples(split) for split in cldr_rows.SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, str]]]:
    for i, row in enumerate(self.rows):
      if row.split == split:
        yield f'{row.language_code}.{row.kind}.{i}', row.columns()


def _builder(
  data_dir: epath.PathLike | None, languages: Sequence[str] | None = None
) -> CldrInstructions:
  return CldrInstructions(data_dir=os.fspath(data_dir or storage.tfds_dir()), languages=languages)


def _read_manifest(builder: CldrInstructions) -> dict[str, Any] | None:
  path = epath.Path(builder.data_dir) / MANIFEST
  return json.loads(path.read_text()) if path.exists() else None


def build(
  data_dir: epath.PathLike | None = None, languages: Sequence[str] | None = None
) -> dict[str, Any]:
  """Builds the data set unless it is there, and returns its manifest (`cldr_rows.manifest`).

  TFDS writes into a directory of another name and renames it; the manifest comes last, and
  nothing reads a set that has none.

  Args:
    data_dir: TFDS data directory; default: `storage.tfds_dir()`.
    languages: ISO 639-3 codes of a smaller set, for tests; default: all that CLDR covers.

  Raises:
    ValueError: if the directory holds a set of other languages, of another Babel or with other
      row counts, or a language is not covered.
  """
  codes = sorted(languages) if languages is not None else [x.code for x in cldr_facts.COVERED]
  builder = _builder(data_dir, codes)
  found = _read_manifest(builder)
  if found is not None:
    got, expected = (found['babel'], found['languages']), (babel.__version__, codes)
    if got != expected:
      raise ValueError(
        f'{builder.data_dir} was made by Babel {got[0]} of {len(got[1])} languages, expected '
        f'Babel {expected[0]} and {len(codes)} languages: remove it, or give another data_dir'
      )
    return found
  made = cldr_rows.manifest(builder.rows)
  # TFDS announces a download of unknown size; nothing is downloaded.
  with (
    storage.making(epath.Path(builder.data_dir).parent),
    contextlib.redirect_stdout(io.StringIO()),
  ):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False, compute_stats='skip')
    )
  storage.release(epath.Path(builder.data_dir))
  counts = {split: info.num_examples for split, info in builder.info.splits.items()}
  if counts != made['splits']:
    raise ValueError(
      f'{builder.data_dir} holds {counts} rows, expected {made["splits"]}: it is not what this '
      'version builds; remove it and build again'
    )
  storage.write_atomically(
    epath.Path(builder.data_dir) / MANIFEST,
    json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + '\n',
  )
  return made


def open_built(
  data_dir: epath.PathLike | None = None,
) -> tuple[CldrInstructions, dict[str, Any]]:
  """The builder of a finished set, and its manifest.

  Raises:
    FileNotFoundError: if the set is missing or half built.
  """
  builder = _builder(data_dir)
  found = _read_manifest(builder)
  if found is None:
    raise FileNotFoundError(
      f'no finished CLDR instruction set at {builder.data_dir}; run `aya-train prepare cldr` '
      f'(seconds, no network), or set {storage.CACHE_ENV} to the cache directory that holds it'
    )
  return builder, found
