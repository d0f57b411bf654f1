"""Released files of benchmarks are found and read wherever they lie; what is wrong is named."""

import gzip
import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from etils import epath

from aya_train.tasks.building import releases
from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.eval import eval_releases

RELEASE = eval_releases.Release('quiz', 'https://example.org/quiz')
ON_HUB = eval_releases.Release('quiz', 'https://example.org/quiz', 'someone/quiz', 'a' * 40)
ROWS = [{'q': 'Une?', 'label': 0}, {'q': 'Deux ?', 'label': 1}]


def tar(path, files, mode):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode) as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return path


@pytest.fixture
def data(tmp_path, monkeypatch):
  monkeypatch.delenv(eval_releases.EVAL_DATA_ENV, raising=False)
  eval_releases.set_eval_data_dir(tmp_path)
  eval_releases.forget_listings()
  yield tmp_path
  eval_releases.set_eval_data_dir(None)
  eval_releases.forget_listings()


LINES = ''.join(json.dumps(row) + '\n' for row in ROWS)


def write(path, content=LINES):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def columns(*patterns, release=RELEASE, names=()):
  return [dict(row) for _, row in eval_releases.rows(release, *patterns, columns=names)]


def test_only_the_end_of_a_path_counts_and_the_first_pattern_with_files_wins(data):
  write(data / 'quiz' / 'repo' / 'data' / 'fr' / 'test.jsonl')
  write(data / 'quiz' / 'xfr' / 'test.jsonl', '{"q": "other"}\n')
  assert columns('nowhere.tsv', 'fr/test.jsonl', 'xfr/*') == ROWS
  ((where, _), _) = eval_releases.rows(RELEASE, 'fr/test.jsonl')
  assert where == f'{data}/quiz/repo/data/fr/test.jsonl row 1'


def test_the_layouts_of_the_hub_and_compressed_and_zipped_files_are_read(data):
  for i in range(2):
    path = write(data / 'quiz' / 'fr' / f'test-0000{i}-of-00002.parquet')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[i : i + 1]), path)
  assert columns(*eval_releases.hub_patterns('fr', 'test')) == ROWS
  write(data / 'quiz' / 'de.jsonl.gz', gzip.compress(b'{"q": "Eins?"}\n'))
  assert columns('de.jsonl') == [{'q': 'Eins?'}]
  with zipfile.ZipFile(data / 'quiz' / 'all.zip', 'w') as archive:
    archive.writestr('all-1.0/es.tsv', 'q\tlabel\n"Uno"?\t0\n')
    archive.writestr('__MACOSX/all-1.0/es.tsv', b'\x00\x05')
    archive.writestr('all-1.0/broken.tsv', 'q\tlabel\nUno?\n')
  assert columns('es.tsv') == [{'q': '"Uno"?', 'label': '0'}]
  with pytest.raises(DamagedFileError, match=r'all\.zip/all-1\.0/broken\.tsv, row 1 .*1 fields'):
    columns('broken.tsv')


@pytest.mark.parametrize(
  ('ending', 'mode'), [('.tar', 'w'), ('.tar.gz', 'w:gz'), ('.tar.bz2', 'w:bz2')]
)
def test_tar_files_are_read_where_they_lie(data, ending, mode):
  files = {'v2/./fr/test.jsonl': LINES.encode(), 'v2/fr/._test.jsonl': b'\0 of macOS'}
  path = tar(data / 'quiz' / f'all{ending}', files, mode)
  assert columns('fr/test.jsonl') == ROWS
  ((where, _), _) = eval_releases.rows(RELEASE, 'fr/test.jsonl')
  assert where.startswith(f'{path}/v2/') and where.endswith('test.jsonl row 1')
  # Unpacked beside it, its rows do not come twice.
  write(data / 'quiz' / 'v2' / 'fr' / 'test.jsonl')
  eval_releases.forget_listings()
  assert columns('fr/test.jsonl') == ROWS
  write(path, path.read_bytes()[: 100 if ending != '.tar' else 700])
  (data / 'quiz' / 'v2' / 'fr' / 'test.jsonl').unlink()
  eval_releases.forget_listings()
  with pytest.raises(DamagedFileError, match='not a whole tar file'):
    columns('fr/test.jsonl')


def test_a_hub_that_cannot_be_reached_is_asked_once_for_many_tasks(data, monkeypatch):
  asked = []

  def fails(repository, revision):
    asked.append(repository)
    raise ConnectionError('no network')

  monkeypatch.setattr(releases.HUB, 'list', fails)
  for _ in range(3):
    with pytest.raises(OSError, match='no network'):
      columns('fr/test.jsonl', release=ON_HUB)
  assert asked == ['someone/quiz']
  eval_releases.forget_listings()
  with pytest.raises(OSError, match='no network'):
    columns('fr/test.jsonl', release=ON_HUB)
  assert len(asked) == 2


@pytest.mark.parametrize('place', [40, 60, 90, 200])
def test_a_damaged_zip_is_named(data, place):
  path = data / 'quiz' / 'all.zip'
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = ''.join(f'{i * 7919 % 1000}\t{i}\n' for i in range(200))
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('es.tsv', f'q\tlabel\n{lines}')
  content = bytearray(path.read_bytes())
  content[place] ^= 0xFF
  path.write_bytes(content)
  with pytest.raises(DamagedFileError, match=r'all\.zip.*not a whole zip file'):
    columns('es.tsv')


def test_a_shard_that_is_missing_is_named(data):
  write(data / 'quiz' / 'fr' / 'test-00000-of-00002.parquet')
  with pytest.raises(DamagedFileError, match=r'1 shards are missing: .*test-00001-of-00002'):
    columns('fr/test-*.parquet')


@pytest.mark.parametrize(
  ('chosen', 'message'),
  [
    ('there', r'quiz: no fr\.tsv or fr/\*\.parquet: there is no folder .*/quiz\. The files are '),
    (
      'empty',
      r'no fr\.tsv or fr/\*\.parquet below .*/quiz\. .*https://example\.org/quiz; put them',
    ),
    ('absent', r'no folder .*/absent \(EVAL_DATA_DIR or AYA_TRAIN_EVAL_DATA\)'),
    (None, r'quiz: no fr\.tsv or fr/\*\.parquet\. The files are released at'),
  ],
)
def test_what_is_not_there_says_what_was_looked_for_and_what_to_do(data, chosen, message):
  (data / 'there').mkdir()
  (data / 'empty' / 'quiz').mkdir(parents=True)
  eval_releases.set_eval_data_dir(chosen and data / chosen)
  with pytest.raises(FileNotFoundError, match=message):
    eval_releases.find(RELEASE, 'fr.tsv', 'fr/*.parquet')


def test_the_environment_names_the_folder_unless_a_macro_does(data, monkeypatch):
  monkeypatch.setenv(eval_releases.EVAL_DATA_ENV, '/from/env')
  assert eval_releases.eval_data_dir() == epath.Path(data)
  eval_releases.set_eval_data_dir(None)
  assert eval_releases.eval_data_dir() == epath.Path('/from/env')


class Hub:
  """Stands in for the hub; has one file."""

  def __init__(self, folder, error=None):
    self.folder, self.error = folder, error

  def list(self, repository, revision):
    if self.error:
      raise self.error
    assert (repository, revision) == ('someone/quiz', 'a' * 40)
    return revision, [releases.ReleasedFile('fr/test.jsonl', 0), releases.ReleasedFile('README', 0)]

  def download(self, repository, commit, name):
    return str(write(self.folder / name))


def test_what_the_folder_lacks_comes_from_the_hub(data, monkeypatch):
  monkeypatch.setattr(releases, 'HUB', Hub(data / 'hub'))
  assert columns(*eval_releases.hub_patterns('fr', 'test'), release=ON_HUB) == ROWS
  with pytest.raises(FileNotFoundError, match=r'someone/quiz@aaaaaaaa on the hub has no such file'):
    eval_releases.find(ON_HUB, 'de/test.jsonl')
  monkeypatch.setattr(releases, 'HUB', Hub(data, ConnectionError('unreachable\nlong')))
  eval_releases.forget_listings()
  with pytest.raises(
    OSError, match=r'cannot be listed on the hub: unreachable\. Check the net'
  ) as e:
    eval_releases.find(ON_HUB, 'fr/test.jsonl')
  assert 'or put the files of https://example.org/quiz into a folder quiz/' in str(e.value)


def test_what_was_downloaded_before_is_read_without_a_network(data, monkeypatch):
  import huggingface_hub

  monkeypatch.setattr(releases, 'HUB', Hub(data, ConnectionError('unreachable')))
  write(data / 'cached' / 'fr' / 'test.jsonl')
  monkeypatch.setattr(
    huggingface_hub, 'snapshot_download', lambda *args, **kwargs: str(data / 'cached')
  )
  assert columns('fr/test.jsonl', release=ON_HUB) == ROWS
