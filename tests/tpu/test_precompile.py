"""Steps compiled for TPU slices without one: pinned costs, so that a regression shows."""

import collections
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import types

import gin
import jax
import numpy as np
import pytest

from aya_train import config, memory_limits
from aya_train.objectives import objective
from aya_train.tpu import hlo_costs, hlo_schedule, precompile, precompile_page, topologies
from aya_train.tpu.topologies import GIB

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason="libtpu is not installed (the extra 'tpu')"
)
# Matrix FLOPs, bytes on the wire and executed collectives of one chip and step, 64 rows of
# 256 + 256 tokens, by libtpu 0.0.52. If one changes, the program did: measure what it
# costs, and pin it anew.
PINNED: dict[tuple[str, str], dict[str, float]] = {
  ('tiny', 'v4-8'): {
    'flops': 55104765952.0,
    'wire': 23806476.0,
    'all-to-all': 6.0,
    'reduce-scatter': 40.0,
    'all-gather': 94.0,
    'all-reduce': 30.0,
  },
  ('tiny', 'v4-128'): {
    'flops': 3514826752.0,
    'wire': 14168082.375,
    'all-gather': 101.0,
    'reduce-scatter': 8.0,
    'all-reduce': 56.0,
    'all-to-all': 6.0,
  },
  ('small', 'v4-8'): {
    'flops': 1308157280256.0,
    'wire': 275904300.0,
    'all-gather': 393.0,
    'reduce-scatter': 108.0,
    'all-reduce': 34.0,
    'all-to-all': 6.0,
  },
  ('small', 'v4-128'): {
    'flops': 82078334976.0,
    'wire': 277846092.375,
    'all-gather': 317.0,
    'reduce-scatter': 20.0,
    'all-reduce': 101.0,
    'all-to-all': 6.0,
  },
}


def compiled(size, slice_name, folder):
  chips = topologies.get(slice_name).num_chips
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'aya_train', 'precompile'),
      *(f'--gin_file=models/mt5_{size}.gin', '--gin_file=recipes/sft_aya.gin'),
      '--gin_file=hardware/tpu_v4_128.gin',
      f"--gin.MESH_SHAPE={{'data': {max(1, chips // 16)}, 'fsdp': {min(chips, 16)}, 'model': 1}}",
      '--gin.BATCH_SIZE=64',
      '--gin.TASK_FEATURE_LENGTHS={"inputs": 256, "targets": 256}',
      '--gin.t5_config.T5Config.vocab_size=8064',
      f'--topology={slice_name}',
      f'--output_dir={folder}',
    ],
    capture_output=True,
    text=True,
    env={**os.environ, 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'},
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return json.loads((folder / f'precompile_{slice_name}.json').read_text())


@needs_libtpu
@pytest.mark.parametrize(
  ('size', 'slice_name'),
  [pytest.param(*case, marks=[pytest.mark.heavy] if case[0] == 'tiny' else []) for case in PINNED],
)
def test_the_costs_of_a_step_are_those_pinned(size, slice_name, tmp_path):
  costs = compiled(size, slice_name, tmp_path)['costs']
  assert summary(costs) == pytest.approx(PINNED[size, slice_name], rel=0.02)


def summary(costs):
  counts = collections.Counter()
  for collective in costs['collectives']:
    counts[collective['kind']] += collective['count']
  return {'flops': costs['matmul_flops'], 'wire': costs['wire_bytes'], **counts}


@pytest.mark.parametrize(
  ('name', 'chips'), [('v4-128', 64), ('v4-8', 4), ('v5litepod-16', 16), ('v5p-128', 64)]
)
def test_slices_by_their_public_names(name, chips):
  assert topologies.get(name).num_chips == chips


@pytest.mark.parametrize(
  ('name', 'want'),
  [
    *(('V4-128', 'v4-128'), ('tpu_v4_128', 'v4-128'), ('TPUv4-128', 'v4-128')),
    *(('v5lite-16', 'v5e-16'), ('tpu-v5litepod-64', 'v5e-64'), (' v6e-8 ', 'v6e-8')),
    *(('v4-4x4x4', 'v4-128'), ('v5e-4x8', 'v5e-32')),
  ],
)
def test_other_ways_to_write_a_name(name, want):
  assert topologies.get(name) == topologies.get(want)


def test_a_slice_without_a_name_is_named_by_its_chips():
  slice_ = topologies.get('v4-4x4x12')
  assert (slice_.name, slice_.num_chips) == ('v4-4x4x12', 192)


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('v4-100', 'v4-128'),
    ('v9-8', 'v5e'),
    ('tpu', 'v4'),
    ('v4-4x4', 'v4-128'),
    ('v5e-0x4', 'v5e-16'),
  ],
)
def test_an_unknown_slice_is_refused_with_those_there_are(name, told):
  with pytest.raises(ValueError, match=told):
    topologies.get(name)


SIZES = {'query': 3, 'key': 3, 'value': 3, 'attention': 3, 'wi': 9, 'residual': 3}


@pytest.fixture
def told(monkeypatch):
  """Suggestions for 16 chips with 16 rows each, everything saved, weights of 10 GiB."""
  sizes = {name: n * GIB for name, n in SIZES.items()}
  monkeypatch.setattr(precompile, 'saved_bytes', lambda job: sizes)
  job = job_of_16_chips()

  def suggestions(peak, usable):
    by_kind = {'parameters': 2 * GIB, 'gradients': 8 * GIB, precompile.ACTIVATIONS: 0}
    return precompile.suggestions(job, by_kind, peak * GIB, usable * GIB)

  return suggestions


def job_of_16_chips(dtype='bfloat16', attention_kernel='fused'):
  config = types.SimpleNamespace(
    remat_policy='save_named',
    remat_save_names=tuple(SIZES),
    dtype=np.dtype(dtype),
    attention_kernel=attention_kernel,
  )
  return types.SimpleNamespace(
    model=types.SimpleNamespace(config=config, loss_chunk_length=64, adapter=None),
    num_microbatches=1,
    batch_size=256,
    lengths={'inputs': 1024, 'targets': 512},
    tokens=objective.RowTokens((1024,), (512,), 512),
    partitioner=types.SimpleNamespace(
      mesh=types.SimpleNamespace(shape={'data': 1, 'fsdp': 16}),
      gathered_axes=(),
      num_data_shards=16,
    ),
  )


KERNEL = memory_limits.Overflow('vmem', 21 * 2**20, 16 * 2**20, 'attention_backward')


@pytest.mark.parametrize(
  ('dtype', 'kernel', 'overflow', 'told', 'untold'),
  [
    ('float32', 'fused', KERNEL, ["'bfloat16'", "'plain'", "'inputs': 1024"], []),
    ('bfloat16', 'fused', KERNEL, ["'plain'", "'inputs': 1024"], ['ACTIVATION_DTYPE']),
    (
      *('float32', 'plain', dataclasses.replace(KERNEL, where='fusion')),
      *(['another libtpu'], ['ACTIVATION_DTYPE', 'ATTENTION_KERNEL']),
    ),
  ],
)
def test_a_kernel_too_large_for_the_chip_is_not_helped_by_hbm(
  dtype, kernel, overflow, told, untold
):
  lines = precompile.on_chip_suggestions(job_of_16_chips(dtype, kernel), overflow)
  assert all(any(words in line for line in lines[:-1]) for words in told)
  assert not any(words in line for line in lines for words in untold)
  settings_of_hbm = ('REMAT', 'MICROBATCHES', 'slice', 'BATCH_SIZE')
  assert not any(words in line for line in lines[:-1] for words in settings_of_hbm)
  assert lines[-1] == 'REMAT_POLICY and NUM_MICROBATCHES save HBM, and would save no vmem'


def test_the_page_names_the_memory_that_overflows():
  result = precompile.Result(
    *(
      'v4-8',
      4,
      {'data': 4},
      30 * GIB,
      None,
      KERNEL,
      {},
      (),
      {},
      *(None,) * 3,
      ('plain',),
      1.0,
      GIB,
    )
  )
  assert not result.fits
  told = precompile_page.text(result)
  assert 'attention_backward wants 21.00 MiB of the 16.00 MiB that there are in vmem' in told
  assert 'HBM is not what is short' in told


@pytest.mark.parametrize(('peak', 'usable'), [(40, 36), (40, 24), (40, 18), (36, 14)])
def test_each_setting_suggested_saves_what_is_too_much(told, peak, usable):
  saving = [re.search(r'about ([\d.]+) GiB less', line) for line in told(peak, usable)]
  found = [float(match[1]) for match in saving if match]
  assert found and min(found) >= peak - usable


def test_names_are_given_up_before_all_is_recomputed(told):
  assert told(40, 36)[0].startswith("REMAT_SAVE_NAMES = ('query', 'attention', 'wi', 'residual')")
  assert told(40, 17)[0].startswith("REMAT_POLICY = 'full'")
  assert told(40, 18)[1].startswith('NUM_MICROBATCHES = 8')


def test_no_setting_is_suggested_where_weights_alone_do_not_fit(told):
  (line,) = told(40, 9)
  assert 'a larger slice or a smaller model' in line and '10.0 GiB' in line


PAIRS = (
  "PREFERENCE_LOSS = 'dpo'",
  'TRAIN_STEPS_RELATIVE = 9',
  "TASK_FEATURE_LENGTHS = {'inputs': 64, 'chosen': 32, 'rejected': 16}",
)
PROMPTS = ("TASK_FEATURE_LENGTHS = {'inputs': 64}", 'TRAIN_STEPS_RELATIVE = 9')
RECIPES = {
  'sft_aya': (("TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 32}",), (64, 32)),
  'preference': (PAIRS, (64, 32, 32)),
  'reward': (PAIRS[1:], (64, 32, 32)),
  'embed_gtr_finetune': ((), (64, 512, 512)),
}


@pytest.fixture
def compiling(monkeypatch):
  """Compiles a recipe for 8 chips with a compiler that says what a program takes, in GiB."""
  monkeypatch.setattr(topologies.Slice, 'devices', lambda self: jax.devices())
  monkeypatch.setattr(precompile, 'lower', lambda job: (None, None))
  kinds = {'parameters': GIB, 'gradients': GIB}
  monkeypatch.setattr(precompile, '_hbm_by_kind', lambda *args: dict(kinds))

  def compiled(recipe, bindings, peak, overflow):
    monkeypatch.setattr(precompile, 'compiled_text', lambda lowered: ('', peak * GIB, overflow))
    costs = hlo_costs.Costs(1e12, 1e9, 1e9, (), {}, {})
    monkeypatch.setattr(hlo_costs, 'analyse', lambda text: costs)
    played = hlo_schedule.Playback(2.0, 0.5, 0.25, 0.0)
    monkeypatch.setattr(hlo_schedule, 'play', lambda text, chip: played)
    monkeypatch.setattr(precompile, 'largest_buffers', lambda text: ())
    files = ['models/mt5_small.gin', f'recipes/{recipe}.gin', 'hardware/tpu_v4_8.gin']
    mesh = "MESH_SHAPE = {'data': 1, 'fsdp': 8, 'model': 1}"
    config.parse(files, (mesh, 'NUM_MICROBATCHES = 1', *bindings), require_all=False)
    slice_ = topologies.get('v4-16')
    return precompile.compile_job(slice_, precompile.job(slice_), {})

  yield compiled
  gin.clear_config()


@pytest.mark.parametrize('recipe', [*RECIPES, 'rloo'])
def test_every_recipe_is_told_what_its_step_takes_or_what_would_help(compiling, recipe):
  bindings, tokens = RECIPES.get(recipe, (PROMPTS, ()))
  result = compiling(recipe, bindings, 10, None)
  assert result.fits and bool(result.estimate) == bool(tokens)
  if result.estimate:
    assert result.estimate.tokens_per_second == pytest.approx(
      sum(tokens) * result.estimate.rows_per_second
    )
    assert '0.250 of 0.500 s for the interconnect' in precompile_page.text(result)
  told = compiling(recipe, bindings, 40, memory_limits.Overflow('hbm', 40 * GIB, 30 * GIB, ''))
  assert any('NUM_MICROBATCHES = 2' in line for line in told.suggestions)
  assert 'NUM_MICROBATCHES' in precompile_page.text(told)


def test_a_run_without_steps_is_refused_before_it_is_compiled(compiling):
  with pytest.raises(ValueError, match='TRAIN_STEPS and TRAIN_STEPS_RELATIVE are both None'):
    compiling('rloo', PROMPTS[:1], 10, None)
