"""Conversions: identity over every path between formats, and folders that are whole or absent."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from aya_train.checkpoint import (
  contents,
  convert,
  digests,
  formats,
  layouts,
  manager,
  sample_logits,
  soundness,
)
from aya_train.checkpoint.arrays import lazy_arrays, zarr_arrays
from aya_train.checkpoint.hf import hf_config, hf_files
from aya_train.checkpoint.t5x import t5x_format
from aya_train.models import network
from tests.checkpoint.t5x import random_leaves, t5x_bytes

CONFIG = random_leaves.wide_config()
LAYOUTS = pytest.mark.parametrize('scan_layers', [True, False], ids=['scanned', 'unrolled'])


@pytest.fixture(scope='module')
def leaves():
  return random_leaves.random_leaves(CONFIG)


@pytest.fixture(scope='module')
def source(leaves, tmp_path_factory):
  return t5x_bytes.write(tmp_path_factory.mktemp('source') / 'checkpoint_7', leaves)


def bytes_of(folder):
  """Every file and its bytes."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in Path(folder).rglob('*')
    if path.is_file()
  }


def numpy(read):
  return {name: array.read() for name, array in read.items()}


@pytest.mark.parametrize('momentum', [False, True], ids=['', 'momentum'])
def test_t5x_through_native_comes_back_bit_for_bit(tmp_path, momentum):
  leaves = random_leaves.random_leaves(CONFIG, momentum=momentum)
  source = t5x_bytes.write(tmp_path / 'checkpoint_7', leaves)
  before = bytes_of(source)
  native = convert.convert(source, tmp_path / 'native', to='native', scan_layers=False, verify=True)
  back = convert.convert(native, tmp_path / 'back', to='t5x', verify=True)
  random_leaves.assert_equal(numpy(t5x_format.read(back)), leaves)
  assert bytes_of(source) == before
  assert sorted(p.name for p in tmp_path.iterdir()) == ['back', 'checkpoint_7', 'native']


@pytest.mark.parametrize(('dtype', 'kept'), [('bfloat16', 'bfloat16'), ('float16', 'float32')])
def test_weights_that_were_bfloat16_stay_so_and_train_as_float32(
  source, leaves, tmp_path, vocabulary_file, dtype, kept
):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  hf = convert.convert(
    *(source, tmp_path / 'hf'),
    to='hf',
    dtype=dtype,
    vocabulary_file=str(vocabulary_file),
    allow_float16_overflow=True,
    verify=True,
  )
  native = convert.convert(hf, tmp_path / 'native', to='native', verify=True)
  stored = formats.open_checkpoint(formats.detect(native))
  assert {str(array.dtype) for array in stored.params.values()} == {kept}
  abstract, _ = network.parameter_axes(stored.config)
  read = traverse_util.flatten_dict(manager.read_params(native, abstract), sep='/')
  assert {str(array.dtype) for array in read.values()} == {'float32'}
  rounded = {
    name.removeprefix('target/'): array.astype(np.dtype(dtype)).astype(np.float32)
    for name, array in leaves.items()
    if name.startswith('target/')
  }
  lazy = {name: lazy_arrays.of(np.asarray(array)) for name, array in read.items()}
  random_leaves.assert_equal(numpy(contents.relayout(lazy, stored.config, CONFIG)), rounded)


@LAYOUTS
def test_parameters_survive_every_format(source, leaves, tmp_path, vocabulary_file, scan_layers):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  options = {'vocabulary_file': str(vocabulary_file), 'verify': True}
  native = convert.convert(
    source, tmp_path / 'native', to='native', scan_layers=scan_layers, **options
  )
  hf = convert.convert(native, tmp_path / 'hf', to='hf', **options)
  again = convert.convert(hf, tmp_path / 'again', to='native', scan_layers=scan_layers)
  t5x = convert.convert(again, tmp_path / 't5x', to='t5x', scan_layers=scan_layers)
  back = convert.convert(t5x, tmp_path / 'hf2', to='hf', **options)
  params = {k.removeprefix('target/'): v for k, v in leaves.items() if k.startswith('target/')}
  for folder in (native, hf, again, t5x, back):
    checkpoint = formats.open_checkpoint(formats.detect(folder))
    random_leaves.assert_equal(numpy(checkpoint.in_layout(CONFIG)), params)
  assert bytes_of(hf) == bytes_of(back)


def test_a_scanned_t5x_checkpoint_gives_the_unrolled_moments_back(source, leaves, tmp_path):
  """Means over a side are kept; where scalable_t5 factors and T5 does not, only these are left."""
  native = convert.convert(source, tmp_path / 'native', to='native')
  scanned = convert.convert(native, tmp_path / 'scanned', to='t5x', scan_layers=True, verify=True)
  again = convert.convert(scanned, tmp_path / 'native2', to='native')
  back = numpy(t5x_format.read(convert.convert(again, tmp_path / 'back', to='t5x')))
  assert set(back) == set(leaves)
  for name, array in leaves.items():
    np.testing.assert_array_equal(back[name], array, err_msg=name)
  shapes = {name: array.shape for name, array in t5x_format.read(scanned).items()}
  assert shapes['target/encoder/encoder/relpos_bias/rel_embedding'] == (2, 3, 32)
  assert shapes['target/encoder/encoder/attention/query/kernel'] == (128, 3, 2, 80)
  assert shapes['target/encoder/encoder/attention/out/kernel'] == (2, 3, 80, 128)
  for name, rows, columns in (
    ('mlp/wi_0/kernel', (128, 3), (3, 136)),
    ('mlp/wo/kernel', (3, 128), (136, 3)),
    ('attention/query/kernel', (128, 3), (3, 2, 80)),
    ('attention/out/kernel', (3, 128), (2, 3, 80)),
    ('pre_mlp_layer_norm/scale', (1,), (1,)),
    ('relpos_bias/rel_embedding', (1,), (1,)),
  ):
    moments = f'state/param_states/encoder/encoder/{name}'
    assert (shapes[f'{moments}/v_row'], shapes[f'{moments}/v_col']) == (rows, columns), name


def umt5_of_scalable_t5(tmp_path):
  """A T5X checkpoint of scalable_t5 whose layers have different position biases, and its leaves."""
  config = random_leaves.wide_config(relpos_bias_per_layer=True)
  leaves = random_leaves.random_leaves(config, momentum=True)
  unrolled = t5x_bytes.write(tmp_path / 'unrolled/checkpoint_7', leaves)
  native = convert.convert(unrolled, tmp_path / 'unrolled/native', to='native')
  return convert.convert(native, tmp_path / 'checkpoint_7', to='t5x', scan_layers=True), leaves


def test_position_biases_of_each_layer_survive_every_format(tmp_path, vocabulary_file):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  scalable, leaves = umt5_of_scalable_t5(tmp_path)
  shapes = {name: array.shape for name, array in t5x_format.read(scalable).items()}
  assert shapes['target/decoder/decoder/relpos_bias/rel_embedding'] == (2, 2, 32)
  assert shapes['state/param_states/encoder/encoder/relpos_bias/rel_embedding/v'] == (2, 3, 32)
  options = {'vocabulary_file': str(vocabulary_file), 'verify': True}
  native = convert.convert(scalable, tmp_path / 'native', to='native', **options)
  back = convert.convert(native, tmp_path / 'back', to='t5x', scan_layers=False, verify=True)
  random_leaves.assert_equal(numpy(t5x_format.read(back)), leaves)
  hf = convert.convert(native, tmp_path / 'hf', to='hf', **options)
  again = convert.convert(hf, tmp_path / 'again', to='t5x', scan_layers=True)
  params = {k: v for k, v in numpy(t5x_format.read(scalable)).items() if k.startswith('target/')}
  found = {k: v for k, v in numpy(t5x_format.read(again)).items() if k.startswith('target/')}
  random_leaves.assert_equal(found, params)


def test_tables_that_differ_cannot_be_shared_and_one_that_is_shared_can_be_copied(
  source, leaves, tmp_path
):
  scalable, _ = umt5_of_scalable_t5(tmp_path)
  checkpoint = formats.open_checkpoint(formats.detect(scalable))
  assert checkpoint.config.relpos_bias_per_layer
  with pytest.raises(ValueError, match=r'checkpoint_7: the 3 layers .* RELPOS_BIAS_PER_LAYER'):
    contents.with_relpos(checkpoint, per_layer=False)
  shared = formats.open_checkpoint(formats.detect(source))
  copied = contents.with_relpos(shared, per_layer=True)
  table = leaves['target/decoder/relpos_bias/rel_embedding']
  moment = leaves['state/param_states/decoder/relpos_bias/rel_embedding/v']
  for layer in range(2):
    name = f'decoder/layers_{layer}/relpos_bias/rel_embedding'
    np.testing.assert_array_equal(copied.params[name].read(), table)
    np.testing.assert_array_equal(copied.moments[f'{name}/v'].read(), moment)
  assert contents.relpos_are_equal(copied)
  joined = contents.with_relpos(copied, per_layer=False)
  random_leaves.assert_equal(numpy(joined.params), numpy(shared.params))
  random_leaves.assert_equal(numpy(joined.moments), numpy(shared.moments))


def test_orbax_itself_restores_what_was_written(source, leaves, tmp_path):
  native = convert.convert(source, tmp_path / 'native', to='native', scan_layers=False)
  abstract, _ = network.parameter_axes(CONFIG)
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
  )
  params = manager.read_params(native, abstract)
  for path, array in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    np.testing.assert_array_equal(array, leaves[f'target/{name}'], err_msg=name)


@pytest.mark.parametrize('to', ['t5x', 'hf'])
def test_bfloat16_is_rounded_once(source, leaves, tmp_path, vocabulary_file, to):
  import ml_dtypes

  if to == 'hf':
    pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  native = convert.convert(source, tmp_path / 'n', to='native')
  out = convert.convert(
    native,
    tmp_path / 'out',
    to=to,
    dtype='bfloat16',
    vocabulary_file=str(vocabulary_file),
    verify=True,
  )
  checkpoint = formats.open_checkpoint(formats.detect(out))
  for name, array in checkpoint.in_layout(CONFIG).items():
    expected = leaves[f'target/{name}'].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(array.read().astype(np.float32), expected, err_msg=name)


# Whole or absent ----------------------------------------------------------------------------------


def test_a_full_folder_is_replaced_only_when_asked(source, tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'notes.txt').write_text('mine')
  with pytest.raises(FileExistsError, match='--overwrite'):
    convert.convert(source, out, to='native')
  assert bytes_of(out) == {'notes.txt': b'mine'}
  convert.convert(source, out, to='native', overwrite=True)
  assert formats.detect(out).format is formats.Format.NATIVE and not (out / 'notes.txt').exists()
  assert [p.name for p in tmp_path.iterdir()] == ['out']


def damage_last_chunk(folder, leaves):
  chunk = folder / 'target.decoder.logits_dense.kernel' / '0.0'
  chunk.write_bytes(chunk.read_bytes()[:-50])


@pytest.mark.parametrize('to', ['native', 'hf'])
def test_a_conversion_that_fails_leaves_everything_as_it_was(leaves, tmp_path, vocabulary_file, to):
  if to == 'hf':
    pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  folder = t5x_bytes.write(tmp_path / 'checkpoint_7', leaves)
  damage_last_chunk(folder, leaves)
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'notes.txt').write_text('mine')
  before = bytes_of(tmp_path)
  with pytest.raises(ValueError, match='decoder/logits_dense/kernel'):
    convert.convert(folder, out, to=to, overwrite=True, vocabulary_file=str(vocabulary_file))
  assert bytes_of(tmp_path) == before


def test_verify_sees_a_missing_array(source, tmp_path, monkeypatch):
  def lose(folder, leaves):
    write(folder, {n: x for n, x in leaves.items() if n != 'target/encoder/layers_2/mlp/wo/kernel'})

  write = t5x_format.write
  native = convert.convert(source, tmp_path / 'native', to='native')
  monkeypatch.setattr(t5x_format, 'write', lose)
  with pytest.raises(ValueError, match=r"read back other arrays: \['target/.*layers_2/mlp/wo"):
    convert.convert(native, tmp_path / 'out', to='t5x', verify=True)
  assert not (tmp_path / 'out').exists()


def test_verify_sees_a_single_wrong_bit(source, tmp_path, monkeypatch):
  def corrupt(folder, leaves):
    write(folder, leaves)
    changed = dict(leaves)
    name = 'target/encoder/layers_2/mlp/wo/kernel'
    array = leaves[name].read()
    array.view(np.uint32)[5, 7] ^= 1
    changed[name] = lazy_arrays.of(array)
    zarr_arrays.write(
      zarr_arrays.kvstore_spec(folder / name.replace('/', '.')),
      changed[name],
      compressor=t5x_format.GZIP,
      chunks=array.shape,
    )

  write = t5x_format.write
  native = convert.convert(source, tmp_path / 'native', to='native')
  monkeypatch.setattr(t5x_format, 'write', corrupt)
  with pytest.raises(ValueError, match=r'layers_2/mlp/wo/kernel.*contents differ'):
    convert.convert(native, tmp_path / 'out', to='t5x', verify=True)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('to', 'kwargs', 'message'),
  [
    ('t5x', {}, "already in the format 't5x', of float32 and laid out as asked"),
    ('t5x', {'dtype': 'float32', 'scan_layers': False}, 'nothing would change'),
    ('native', {'dtype': 'float16'}, '--dtype of --to native must be one of'),
    ('native', {'vocabulary_file': 'nowhere.model'}, 'does not exist'),
    ('zip', {}, 'to must be one of'),
    ('hf', {}, '--vocabulary'),
  ],
)
def test_what_makes_no_sense_is_refused_before_work_starts(source, tmp_path, to, kwargs, message):
  if to == 'hf':
    pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    convert.convert(source, tmp_path / 'out', to=to, **kwargs)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('where', ['checkpoint_7/out', 'checkpoint_7', '.'])
def test_the_source_is_never_written_into(source, tmp_path, where):
  before = bytes_of(source)
  with pytest.raises(ValueError, match='must not lie in one another'):
    convert.convert(source, source.parent / where, to='native', overwrite=True)
  assert bytes_of(source) == before


def test_a_full_disk_is_reported_before_work_starts(source, tmp_path, monkeypatch):
  monkeypatch.setattr(convert.shutil, 'disk_usage', lambda path: type('U', (), {'free': 1000})())
  with pytest.raises(OSError, match='free'):
    convert.convert(source, tmp_path / 'out', to='native')
  assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_a_checkpoint(source, tmp_path):
  """kill -9 while arrays are being written; the next conversion clears what is left."""
  out = tmp_path / 'out'
  program = f"""
import itertools, time
from aya_train.checkpoint import convert
from aya_train.checkpoint.arrays import zarr_arrays
write, calls = zarr_arrays.write, itertools.count()
def slow(*args, **kwargs):
  if next(calls) == 9:
    print('writing', flush=True)
    time.sleep(60)
  return write(*args, **kwargs)
zarr_arrays.write = slow
convert.convert({str(source)!r}, {str(out)!r}, to='native')
"""
  before = bytes_of(source)
  process = subprocess.Popen(
    [sys.executable, '-c', program], stdout=subprocess.PIPE, env={**os.environ}, text=True
  )
  assert process.stdout.readline() == 'writing\n'
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not out.exists() and bytes_of(source) == before
  assert [p.name for p in tmp_path.iterdir()] == ['.out.partial']
  convert.convert(source, out, to='native')
  assert [p.name for p in tmp_path.iterdir()] == ['out']


# What else may change -----------------------------------------------------------------------------


@pytest.mark.parametrize('to', ['native', 't5x'])
def test_a_format_stays_while_layout_or_dtype_change(source, leaves, tmp_path, to):
  source = source if to == 't5x' else convert.convert(source, tmp_path / 'native', to='native')
  before = formats.open_checkpoint(formats.detect(source))
  other = not before.config.scan_layers
  turned = convert.convert(source, tmp_path / 'turned', to=to, scan_layers=other)
  assert formats.open_checkpoint(formats.detect(turned)).config.scan_layers is other
  half = convert.convert(turned, tmp_path / 'half', to=to, dtype='bfloat16', verify=True)
  found = formats.open_checkpoint(formats.detect(half))
  assert found.config.scan_layers is other and found.step == 7
  assert {str(array.dtype) for array in found.params.values()} == {'bfloat16'}
  assert {str(array.dtype) for array in found.moments.values()} == {'float32'}
  for name, array in found.in_layout(CONFIG).items():
    expected = leaves[f'target/{name}'].astype(array.dtype)
    np.testing.assert_array_equal(array.read(), expected, err_msg=name)
  with pytest.raises(ValueError, match='of bfloat16 and laid out as asked'):
    convert.convert(half, tmp_path / 'again', to=to)


def test_hugging_face_folders_change_dtype_or_shards(source, tmp_path, vocabulary_file):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  hf = convert.convert(
    source, tmp_path / 'hf', dtype='bfloat16', vocabulary_file=str(vocabulary_file)
  )
  with pytest.raises(ValueError, match='nothing would change'):
    convert.convert(hf, tmp_path / 'same')
  sharded = convert.convert(hf, tmp_path / 'sharded', max_shard_size='300KB', verify=True)
  assert (sharded / 'model.safetensors.index.json').exists()
  found = formats.open_checkpoint(formats.detect(sharded)).params
  assert {str(array.dtype) for array in found.values()} == {'bfloat16'}
  whole = convert.convert(sharded, tmp_path / 'whole')
  assert bytes_of(whole) == bytes_of(hf)
  wide = convert.convert(hf, tmp_path / 'wide', dtype='float32')
  assert {str(a.dtype) for a in formats.open_checkpoint(formats.detect(wide)).params.values()} == {
    'float32'
  }


# Logits -------------------------------------------------------------------------------------------


def test_verify_sees_a_network_that_computes_something_else(
  source, tmp_path, vocabulary_file, monkeypatch
):
  """Every array is right, the activation in config.json is not."""
  pytest.importorskip('torch', reason='needs the extra `hf`')
  monkeypatch.setitem(hf_config.FEED_FORWARD_PROJ, ('gelu', 'linear'), 'gated-silu')
  monkeypatch.setattr(
    convert, '_read_back', lambda out, _: numpy_arrays(hf_files.open_tensors(out), source)
  )
  monkeypatch.setattr(convert.carrying, 'check_carried', lambda *_: None)
  with pytest.raises(ValueError, match='logits on sample prompts differ'):
    convert.convert(source, tmp_path / 'out', vocabulary_file=str(vocabulary_file), verify=True)
  assert list(tmp_path.iterdir()) == []


def numpy_arrays(tensors, source):
  config = formats.open_checkpoint(formats.detect(source)).config
  return layouts.from_hf(tensors, layouts.table_of(config))


@pytest.mark.parametrize('to', ['native', 't5x', 'hf'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_verify_compares_logits_and_says_so(
  source, tmp_path, vocabulary_file, caplog, monkeypatch, to, dtype
):
  if to == 'hf':
    pytest.importorskip('tokenizers', reason='needs the extra `hf`')
  caplog.set_level('INFO', logger='aya_train')
  scan_layers = to == 't5x'
  options = {'vocabulary_file': str(vocabulary_file), 'scan_layers': scan_layers}
  convert.convert(source, tmp_path / 'out', to=to, dtype=dtype, verify=True, **options)
  assert 'verified logits on 8 sample prompts' in caplog.text
  monkeypatch.setattr(sample_logits, 'available_bytes', lambda: 1000)
  convert.convert(source, tmp_path / 'out2', to=to, dtype=dtype, verify=True, **options)
  assert 'were not compared: the model in float32 needs' in caplog.text


def test_logits_that_are_not_finite_do_not_pass():
  finite, broken = [np.ones((2, 3))], [np.full((2, 3), np.nan)]
  assert sample_logits._difference(finite, broken) == np.inf
  assert sample_logits._difference(finite, [np.full((2, 3), 1.001)]) == pytest.approx(1e-3)
  assert sample_logits._difference(broken, broken) == np.inf


def test_card_and_license_are_there_before_the_folder_has_its_name(
  source, tmp_path, vocabulary_file
):
  pytest.importorskip('tokenizers', reason='needs the extra `hf`')

  def finish(folder):
    assert not (tmp_path / 'out').exists() and (folder / 'config.json').exists()
    (folder / 'README.md').write_text('# Card')
    raise RuntimeError('killed')

  with pytest.raises(RuntimeError, match='killed'):
    convert.convert(source, tmp_path / 'out', vocabulary_file=str(vocabulary_file), finish=finish)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda m: m['architecture'].update(num_heads=4), 'do not fit the T5Config'),
    (lambda m: m['architecture'].pop('emb_dim'), 'do not fit the T5Config'),
    (lambda m: m['architecture'].update(emb_dim='x'), 'not what was written'),
    (lambda m: m['architecture'].update(relative_attention_num_buckets=0), 'not what was written'),
    (lambda m: m['architecture'].update(unheard_of=1), 'not what was written'),
    (lambda m: m.pop('step'), 'not what was written'),
    (lambda m: m.clear(), 'not what was written'),
  ],
)
def test_native_metadata_that_do_not_fit_are_refused(source, tmp_path, damage, message):
  native = convert.convert(source, tmp_path / 'native', to='native')
  shutil.rmtree(native / 'digests')  # somebody has put it together by hand
  path = native / 'metadata' / 'metadata'
  metadata = json.loads(path.read_text())
  damage(metadata)
  path.write_text(json.dumps(metadata))
  with pytest.raises(ValueError, match=message) as raised:
    convert.convert(native, tmp_path / 'out', to='t5x')
  assert str(native) in str(raised.value) and not (tmp_path / 'out').exists()


def test_what_is_written_as_native_is_held_to_its_digests(source, tmp_path):
  native = convert.convert(source, tmp_path / 'native', to='native')
  stored = soundness.read(native).arrays
  params = formats.open_checkpoint(formats.detect(native)).params
  assert {n: x.digest for n, x in stored['params'].items()} == digests.of_tree(numpy(params))
  assert set(stored) == {'params', 'training'}

  chunks = [path for path in Path(native).glob('params/*/*') if path.name[0].isdigit()]
  chunk = max(chunks, key=lambda path: path.stat().st_size)
  raw = bytearray(chunk.read_bytes())
  raw[len(raw) // 3] ^= 1
  chunk.write_bytes(raw)
  name = chunk.parent.name.replace('.', '/')
  for to in ('t5x', 'native'):
    with pytest.raises(soundness.DamagedError, match=f'array {name}: the numbers'):
      convert.convert(native, tmp_path / 'out', to=to, scan_layers=False)
    assert not (tmp_path / 'out').exists()
