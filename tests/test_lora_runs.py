"""Runs that train an adapter: saved and resumed without their base, which may be no other."""

import dataclasses

import jax
import numpy as np
import pytest
import seqio

from aya_train import optimizer, partitioning, train_loop
from aya_train.checkpoint import adapters, convert, formats, manager, reading
from aya_train.models import lora
from aya_train.objectives import objective
from tests import test_train_loop as loop
from tests import tiny


@pytest.fixture(scope='module', autouse=True)
def copy_task():
  loop.register_task()
  yield
  seqio.TaskRegistry.remove('tests.copy')


@pytest.fixture(scope='module')
def prepared_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('prepared')


@pytest.fixture(scope='module')
def base(tmp_path_factory, prepared_dir):
  """Two steps of an ordinary run."""
  folder = tmp_path_factory.mktemp('base')
  train_loop.train(**loop.settings(folder, prepared_dir, total_steps=2))
  return folder


def adapted(model_dir, prepared_dir, base, *, weights='float32', rank=2, **changes):
  settings = loop.settings(model_dir, prepared_dir)
  plain = settings['model']
  module = lora.transformer(plain.config, rank, 4.0, ('q', 'v'), 0.1, base_weights=weights)
  return {
    **settings,
    'model': dataclasses.replace(plain, module=module),
    'optimizer': optimizer.adamw,
    'initial_checkpoint_path': str(base),
    'random_seed': 5,
    **changes,
  }


def states_equal(one, other):
  return all(map(np.array_equal, *(jax.tree.leaves(s.saved) for s in (one, other))))


@pytest.mark.heavy
def test_a_run_of_an_adapter_is_resumed_bit_for_bit_and_its_answers_are_those_of_the_merged_model(
  base, prepared_dir, tmp_path
):
  straight = train_loop.train(**adapted(tmp_path / 'a', prepared_dir, base), relative_steps=4)
  train_loop.train(**adapted(tmp_path / 'b', prepared_dir, base), relative_steps=2)
  resumed = train_loop.train(**adapted(tmp_path / 'b', prepared_dir, base), relative_steps=4)
  assert int(straight.step) == 6 and states_equal(straight, resumed)
  assert all(float(abs(x).max()) > 0 for x in jax.tree.leaves(straight.params))

  # Megabytes: nothing of the base is saved, which is named instead.
  step = manager.find(tmp_path / 'a')
  assert manager.num_params(step) == sum(x.size for x in jax.tree.leaves(straight.params))
  said = manager.read_metadata(step)
  assert said['base']['path'] == str(manager.find(base)) and said['adapter']['rank'] == 2
  source = formats.detect(tmp_path / 'a')
  assert source.format is formats.Format.ADAPTER

  # As a checkpoint it is the base with the adapter merged, for whatever reads checkpoints.
  plain, one = tiny.model(dropout_rate=0.1), partitioning.one_device()
  rows = {
    'encoder_input_tokens': np.arange(2, 18, dtype=np.int32).reshape(2, 8),
    'decoder_input_tokens': np.arange(3, 11, dtype=np.int32).reshape(2, 4),
    'decoder_target_tokens': np.arange(3, 11, dtype=np.int32).reshape(2, 4),
  }
  model = adapted(tmp_path / 'a', prepared_dir, base)['model']
  wanted = model.score_batch(straight.all_params, rows)
  for each in (plain, model):
    found = each.score_batch(reading.read_for(each, one, source), rows)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
  convert.convert(tmp_path / 'a', tmp_path / 'merged', to='native')
  merged = reading.read_for(plain, one, formats.detect(tmp_path / 'merged'))
  np.testing.assert_allclose(plain.score_batch(merged, rows), wanted, rtol=1e-5)

  # A new run may begin with the adapter of another, of more rank, and computes the same then.
  larger = adapted(tmp_path / 'c', prepared_dir, tmp_path / 'a', rank=3)['model']
  params = reading.read_for(larger, one, source)
  np.testing.assert_allclose(larger.score_batch(params, rows), wanted, rtol=1e-5)
  with pytest.raises(ValueError, match=r'has rank 2 on .*: bind LORA_RANK'):
    reading.check(source, {}, adapted(tmp_path, prepared_dir, base, rank=1)['model'])


@pytest.mark.parametrize('weights', ['nf4', 'float32'])
def test_who_puts_an_adapter_on_other_weights_than_it_was_trained_on_is_told(
  base, prepared_dir, tmp_path, caplog, weights
):
  run = tmp_path / 'run'
  settings = adapted(run, prepared_dir, base, weights=weights)
  train_loop.train(**settings, relative_steps=1)

  def told(act):
    caplog.clear()
    act()
    return 'was trained on nf4 weights and is put on float ones' in caplog.text

  def read(model):
    reading.check(formats.detect(run), objective.parameter_axes(model)[0], model)

  for to, named in (('native', None), ('peft', 'name/on-the-hub')):
    wrong = told(lambda to=to, named=named: convert.convert(run, tmp_path / to, to=to, base=named))
    assert wrong == (weights == 'nf4'), to
  assert told(lambda: read(tiny.model(dropout_rate=0.1))) == (weights == 'nf4')
  assert not told(lambda: read(settings['model']))


@pytest.mark.heavy
def test_another_base_and_another_adapter_are_refused(base, prepared_dir, tmp_path):
  run = tmp_path / 'run'
  train_loop.train(**adapted(run, prepared_dir, base, weights='nf4'), relative_steps=1)
  other = tmp_path / 'other'
  convert.convert(base, other, to='native', dtype='bfloat16')
  with pytest.raises(ValueError, match=r'belongs to a base of identity .* these are other weights'):
    train_loop.train(**adapted(run, prepared_dir, other, weights='nf4'), relative_steps=2)
  with pytest.raises(ValueError, match=r"holds a run with .*'base_weights': 'nf4'.*take another"):
    train_loop.train(**adapted(run, prepared_dir, base, weights='int8'), relative_steps=2)
  with pytest.raises(ValueError, match='belongs to a base of identity'):
    formats.open_checkpoint(formats.detect(run, str(other)))
  with pytest.raises(FileNotFoundError, match='BASE_CHECKPOINT_PATH of train, infer and eval'):
    formats.open_checkpoint(formats.detect(run, str(tmp_path / 'gone')))
  with pytest.raises(ValueError, match='is no adapter, but whole weights'):
    formats.detect(base, str(other))
  with pytest.raises(ValueError, match='holds whole weights and no adapter'):
    convert.convert(base, tmp_path / 'peft', to='peft')
  # A base that was moved is found where it is named, and by its content alone.
  moved = base.rename(base.with_name('moved'))
  try:
    with pytest.raises(FileNotFoundError, match=r'the base of the adapter|no checkpoint at'):
      formats.open_checkpoint(formats.detect(run))
    assert formats.open_checkpoint(formats.detect(run, str(moved))).step == 3
  finally:
    moved.rename(base)


def test_an_adapter_needs_a_base(prepared_dir, tmp_path):
  settings = adapted(tmp_path, prepared_dir, None, initial_checkpoint_path=None)
  with pytest.raises(ValueError, match='nothing without the weights under it'):
    train_loop.train(**settings, relative_steps=1)


def test_an_adapter_of_another_network_is_refused_by_name(base, prepared_dir, tmp_path):
  opened = formats.open_checkpoint(formats.detect(base))
  pair = adapters.Pair(*(opened.params['decoder/decoder_norm/scale'],) * 2, 1.0)
  wide = dataclasses.replace(pair.a, shape=(99, 2)), dataclasses.replace(pair.b, shape=(2, 16))
  named = {'encoder/layers_7/attention/query/kernel': adapters.Pair(*wide, 1.0)}
  with pytest.raises(ValueError, match=r'of another network .* \(99, 16\) there, missing here'):
    adapters.merged(opened, adapters.Adapter('somewhere', named, ''))
