"""What the files of an exported folder hold is listed in it, and held against that when read."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aya_train.checkpoint import (
  adapters,
  checkpoint_identity,
  convert,
  formats,
  peft_export,
  sha256sums,
)
from aya_train.checkpoint.arrays import lazy_arrays
from aya_train.checkpoint.hf import hf_export, peft_folder
from aya_train.embedding import ct2_vectors, encoder_checkpoint
from aya_train.evaluation import evaluation
from aya_train.export import quantised, sentence_folder
from aya_train.objectives import seq2seq
from tests.checkpoint import small_model

pytest.importorskip('transformers', reason='needs the extra `hf`')

CONFIG = small_model.config(scan_layers=False, emb_dim=32, mlp_dim=64, head_dim=16)
RENAMED = 'encoder/layers_0/attention/query/kernel'


def open_any(folder):
  return formats.open_checkpoint(formats.detect(folder))


def open_evaluation(folder):
  # A folder of CTranslate2 is answered with as it is: the model has no say in it.
  return evaluation._Checkpoint(str(folder), seq2seq.EncoderDecoderModel, None, 'float32')


FORMATS = {
  'hf': open_any,
  't5x': open_any,
  'peft': lambda folder: formats.open_adapter(formats.detect(folder)),
  'sentence': encoder_checkpoint.open_checkpoint,
  'ct2': open_evaluation,
  'ct2_encoder': ct2_vectors.open_folder,
  'gguf': sha256sums.check,
}
NEEDED = {'ct2': 'ctranslate2', 'ct2_encoder': 'ctranslate2', 'gguf': 'gguf'}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A format -> a folder of it, as `convert` writes it."""
  folder = tmp_path_factory.mktemp('exports')
  vocabulary = small_model.train_vocabulary(folder)
  hf = hf_export.export(small_model.random_params(CONFIG), CONFIG, vocabulary, folder / 'source')
  found = {}

  def write(form):
    out = folder / form
    if form in ('hf', 't5x'):
      return convert.convert(hf, out, to=form, dtype='bfloat16')
    if form == 'peft':
      peft_folder.write(folder / 'adapter', adapter_of(hf), str(hf), DEPTHS, 'float32')
      options = {'base': None, 'dtype': 'bfloat16', 'overwrite': False, 'verify': False}
      peft_export.export(folder / 'adapter', out, **options)
      return out
    sentence = folder / 'st'
    if not sentence.exists():
      sentence_folder.export(hf, sentence)
    if form == 'sentence':
      return sentence
    source = sentence if form == 'ct2_encoder' else hf
    return quantised.quantise(source, out, to=form.partition('_')[0], num_examples=0)

  def get(form):
    if form in NEEDED:
      pytest.importorskip(NEEDED[form], reason='needs the extra `quantised`')
    if form not in found:
      found[form] = Path(write(form))
    return found[form]

  return get


DEPTHS = {'encoder': CONFIG.num_encoder_layers, 'decoder': CONFIG.num_decoder_layers}


def adapter_of(hf):
  rng = np.random.default_rng(0)
  shape = open_any(hf).params[RENAMED].shape
  a, b = rng.normal(size=(shape[0], 2)), rng.normal(size=(2, shape[1]))
  pair = adapters.Pair(*(lazy_arrays.of(x.astype(np.float32)) for x in (a, b)), scale=1.0)
  return adapters.Adapter('tests', {RENAMED: pair}, str(hf))


def flip(path, place=0.5):
  """Changes one bit of a file."""
  content = bytearray(path.read_bytes())
  content[int(len(content) * place)] ^= 1
  path.write_bytes(content)


def copied(folder, tmp_path):
  return Path(shutil.copytree(folder, tmp_path / folder.name))


@pytest.mark.parametrize('form', FORMATS)
def test_every_file_is_listed_as_coreutils_lists_it(made, form):
  folder = made(form)
  listed = {line[66:] for line in (folder / sha256sums.NAME).read_text().splitlines()}
  there = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
  assert listed == there - {sha256sums.NAME, 'README.md'}
  if shutil.which('sha256sum'):
    command = ['sha256sum', '--check', '--strict', '--quiet', sha256sums.NAME]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize('form', FORMATS)
def test_a_flipped_bit_of_any_file_is_told_when_the_folder_is_opened(made, form, tmp_path, caplog):
  folder = copied(made(form), tmp_path)
  FORMATS[form](folder)
  for name in [line[66:] for line in (folder / sha256sums.NAME).read_text().splitlines()]:
    content = (folder / name).read_bytes()
    flip(folder / name)
    caplog.clear()
    if sha256sums._is_settings(name):
      sha256sums.check(folder)
      assert f'{name} has changed' in caplog.text
    else:
      with pytest.raises(ValueError, match='is not what was written') as raised:
        FORMATS[form](folder)
      assert str(folder / name) in str(raised.value)
    (folder / name).write_bytes(content)
  caplog.clear()
  FORMATS[form](folder)
  assert not caplog.text


def test_a_card_may_be_edited_and_files_left_out(made, tmp_path, caplog):
  folder = copied(made('hf'), tmp_path)
  (folder / 'README.md').write_text('mine')
  (folder / 'LICENSE').unlink(missing_ok=True)
  (folder / 'notes.txt').write_text('mine')
  open_any(folder)
  assert not caplog.text


def test_whoever_changes_weights_on_purpose_deletes_the_list(made, tmp_path):
  folder = copied(made('hf'), tmp_path)
  flip(folder / 'model.safetensors')
  with pytest.raises(ValueError, match=f'delete {folder / sha256sums.NAME}'):
    open_any(folder)
  identity = checkpoint_identity.of(formats.detect(folder).path)
  (folder / sha256sums.NAME).unlink()
  open_any(folder)
  assert checkpoint_identity.of(formats.detect(folder).path) == identity


@pytest.mark.parametrize(
  'line', ['', 'abc  config.json', 'a' * 64 + '  ../../secret', 'a' * 64 + '  /etc/passwd', '\xff']
)
def test_a_list_that_is_none_is_refused_with_its_line(made, tmp_path, line):
  folder = copied(made('hf'), tmp_path)
  text = (folder / sha256sums.NAME).read_text()
  (folder / sha256sums.NAME).write_bytes(text.encode() + line.encode('latin-1') + b'\n')
  number = text.count('\n') + 1
  with pytest.raises(ValueError, match=f'{sha256sums.NAME}, line {number}: expected'):
    open_any(folder)


def test_a_file_is_read_once_until_it_changes(made, tmp_path, monkeypatch):
  folder = copied(made('hf'), tmp_path)
  read = []
  digest = sha256sums._digest
  monkeypatch.setattr(
    sha256sums, '_digest', lambda path, advance: read.append(path.name) or digest(path, advance)
  )
  open_any(folder)
  open_any(folder)
  assert read.count('model.safetensors') == 1
  flip(folder / 'model.safetensors')
  with pytest.raises(ValueError, match=r'model\.safetensors is not what was written'):
    open_any(folder)


@pytest.mark.parametrize(('is_first', 'read'), [(True, True), (False, False)])
def test_of_a_bucket_the_first_host_alone_reads(made, tmp_path, monkeypatch, is_first, read):
  folder = copied(made('hf'), tmp_path)
  flip(folder / 'model.safetensors')
  monkeypatch.setattr(sha256sums.hosts, 'is_first', lambda: is_first)
  monkeypatch.setattr(sha256sums.destinations, 'is_local', lambda path: False)
  refused = pytest.raises(ValueError, match='is not what was written')
  with refused if read else contextlib.nullcontext():
    sha256sums.check(folder)
