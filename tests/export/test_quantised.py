"""`convert --to ct2` and `--to gguf` from the command line to a finished folder."""

import json

import pytest

from aya_train.checkpoint import convert
from aya_train.checkpoint.hf import hf_export
from aya_train.cli import main
from aya_train.export import hub, quantised
from tests.checkpoint import small_model

for package, extra in (('transformers', 'hf'), ('ctranslate2', 'quantised'), ('gguf', 'quantised')):
  pytest.importorskip(package, reason=f'needs the extra `{extra}`')

FILES = {
  'ct2': {'config.json', 'model.bin', 'shared_vocabulary.json', 'spiece.model', 'tokenizer.json'},
  'gguf': {'model-q8_0.gguf'},
}


@pytest.fixture(scope='module')
def run_dir(vocabulary_file, tmp_path_factory):
  """A MODEL_DIR with a checkpoint, as a run leaves it."""
  config = small_model.config(scan_layers=False, emb_dim=32, mlp_dim=64)
  folder = tmp_path_factory.mktemp('quantised')
  hf = hf_export.export(small_model.random_params(config), config, vocabulary_file, folder / 'hf')
  convert.convert(hf, folder / 'run' / 'checkpoints' / '9', to='native')
  (folder / 'run' / 'run.json').write_text('{"first_step": 0}')
  (folder / 'run' / 'metrics.jsonl').write_text('')
  (folder / 'run' / 'inference_eval').mkdir()
  row = {'input': {'inputs_pretokenized': 'coffee', 'targets_pretokenized': 'maji'}}
  (folder / 'run' / 'inference_eval' / 'cldr-000009.jsonl').write_text(json.dumps(row) + '\n')
  return folder / 'run'


@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_a_run_becomes_a_finished_folder_and_nothing_else(run_dir, tmp_path, to, monkeypatch):
  pushed = []
  monkeypatch.setattr(hub, 'check', lambda repo: pushed.append(repo))
  monkeypatch.setattr(hub, 'push', lambda folder, repo, private: pushed.append((folder, private)))
  before = sorted(path.name for path in run_dir.rglob('*'))
  out = tmp_path / 'out'
  arguments = ['convert', str(run_dir), str(out), '--to', to, '--push', 'ann/x', '--private']
  assert main.main(arguments) == 0
  names = {path.name for path in out.iterdir()}
  assert FILES[to] | {'README.md', 'LICENSE', 'quantised.json'} <= names
  found = json.loads((out / 'quantised.json').read_text())
  assert (found['examples'], found['examples_file']) == (1, 'cldr-000009.jsonl')
  assert 'Loss per target token' in (out / 'README.md').read_text()
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  assert sorted(path.name for path in run_dir.rglob('*')) == before
  assert pushed == ['ann/x', (str(out), True)]


@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_a_full_disk_is_called_by_the_folder_given(run_dir, tmp_path, to, monkeypatch):
  disk = type('Usage', (), {'free': 1000})()
  monkeypatch.setattr(convert.shutil, 'disk_usage', lambda path: disk)
  with pytest.raises(OSError, match='MB free') as raised:
    quantised.quantise(run_dir, tmp_path / 'out', to=to)
  assert str(raised.value).startswith(f'{tmp_path} has 0.0 MB free')
  assert list(tmp_path.iterdir()) == []


def test_a_hugging_face_folder_is_taken_as_it_is(run_dir, tmp_path):
  quantised.quantise(run_dir.parent / 'hf', tmp_path / 'out', to='gguf', quantisation='q4_0')
  found = json.loads((tmp_path / 'out' / 'quantised.json').read_text())
  assert found['quantisation'] == 'q4_0' and 'loss' not in found
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def bare(run_dir, tmp_path, vocabulary=None):
  """A folder that transformers saved, with its tokenizer or without any."""
  from tests.checkpoint.hf import transformers_folder

  sizes = {'d_model': 32, 'd_kv': 16, 'd_ff': 64}
  return transformers_folder.write(tmp_path / 'source', vocabulary=vocabulary, **sizes)


@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_a_folder_without_tokenizer_gets_the_vocabulary_or_is_refused(
  run_dir, tmp_path, to, vocabulary_file
):
  source = bare(run_dir, tmp_path)
  with pytest.raises(FileNotFoundError, match='--vocabulary'):
    quantised.quantise(source, tmp_path / 'out', to=to)
  out = quantised.quantise(source, tmp_path / 'out', to=to, vocabulary_file=str(vocabulary_file))
  if to == 'ct2':
    pieces = json.loads((out / 'shared_vocabulary.json').read_text())
    assert '<extra_id_99>' in pieces and '▁m' in pieces
    assert (out / 'spiece.model').read_bytes() == vocabulary_file.read_bytes()


@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_a_table_under_another_name_is_taken(run_dir, tmp_path, to, vocabulary_file):
  import safetensors.torch

  source = bare(run_dir, tmp_path, vocabulary_file)
  tensors = safetensors.torch.load_file(source / 'model.safetensors')
  tensors = {name: array.clone() for name, array in tensors.items()}
  tensors['encoder.embed_tokens.weight'] = tensors.pop('shared.weight')
  safetensors.torch.save_file(tensors, source / 'model.safetensors', metadata={'format': 'pt'})
  rows = [{'inputs': 'coffee', 'targets': 'maji'}]
  (tmp_path / 'rows.jsonl').write_text(json.dumps(rows[0]))
  out = quantised.quantise(source, tmp_path / 'out', to=to, examples_file=tmp_path / 'rows.jsonl')
  found = json.loads((out / 'quantised.json').read_text())
  assert found['loss'] == pytest.approx(found['float_loss'], rel=0.05)


@pytest.mark.parametrize('to', ['ct2', 'gguf'])
def test_what_is_not_finite_and_another_end_are_refused(run_dir, tmp_path, to, vocabulary_file):
  import safetensors.torch

  from tests.checkpoint.hf import transformers_folder

  source = bare(run_dir, tmp_path, vocabulary_file)
  transformers_folder.change(source, 'generation_config.json', eos_token_id=7)
  with pytest.raises(ValueError, match=r'eos_token_id \[7\]'):
    quantised.quantise(source, tmp_path / 'out', to=to)
  transformers_folder.change(source, 'generation_config.json', eos_token_id=1)
  tensors = safetensors.torch.load_file(source / 'model.safetensors')
  tensors = {name: array.clone() for name, array in tensors.items()}
  tensors['lm_head.weight'][3, 5] = float('nan')
  safetensors.torch.save_file(tensors, source / 'model.safetensors', metadata={'format': 'pt'})
  with pytest.raises(ValueError, match=r'lm_head\.weight holds'):
    quantised.quantise(source, tmp_path / 'out', to=to)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--to', 'gguf', '--quantisation', 'int8'], 'q8_0'),
    (['--to', 'ct2', '--quantisation', 'q8_0'], 'int8_float32'),
    (['--to', 'native', '--push', 'ann/x'], 'not native checkpoints'),
    (['--to', 'hf', '--push', 'https://huggingface.co/ann/x'], 'OWNER/NAME'),
  ],
)
def test_bad_arguments_end_in_one_message_before_any_work(
  run_dir, tmp_path, arguments, message, capsys
):
  assert main.main(['convert', str(run_dir), str(tmp_path / 'out'), *arguments]) == 1
  assert message in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_full_folders_are_refused_before_the_export(run_dir, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('mine')
  monkeypatch.setattr(convert, 'convert', lambda *_, **__: pytest.fail('worked in vain'))
  with pytest.raises(FileExistsError, match='--overwrite'):
    quantised.quantise(run_dir, tmp_path, to='ct2')
  assert (tmp_path / 'file').read_text() == 'mine'


def test_missing_packages_are_named(monkeypatch):
  import importlib.util

  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    ValueError, match=r"needs ctranslate2: pip install 'aya-train\[hf,quantised\]'"
  ):
    quantised.require('ct2')


def test_exports_come_with_card_and_license(run_dir, tmp_path):
  out = tmp_path / 'hf'
  assert main.main(['convert', str(run_dir), str(out), '--base_model', 'google/mt5-small']) == 0
  card = (out / 'README.md').read_text()
  assert 'base_model: google/mt5-small' in card and 'library_name: transformers' in card
  assert (out / 'LICENSE').exists()
