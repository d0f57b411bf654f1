"""Steps compiled for TPU slices without one: pinned costs, so that a regression shows as a number."""

import collections
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from aya_train import precompile, topologies

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason="libtpu is not installed (the extra 'tpu')"
)
# Matrix FLOPs, bytes on the wire and executed collectives of one chip and step, 64 rows of 256 + 256
# tokens, by libtpu 0.0.52. If one changes, the program did: measure what it costs, and pin it anew.
PINNED: dict[tuple[str, str], dict[str, float]] = {
  ('tiny', 'v4-8'): {
    'flops': 63560482816.0,
    'wire': 28033212.0,
    'all-to-all': 7.0,
    'all-gather': 106.0,
    'reduce-scatter': 40.0,
    'all-reduce': 38.0,
  },
  ('tiny', 'v4-128'): {
    'flops': 4043309056.0,
    'wire': 15227483.25,
    'all-gather': 133.0,
    'reduce-scatter': 8.0,
    'all-reduce': 50.0,
    'all-to-all': 7.0,
  },
  ('small', 'v4-8'): {
    'flops': 1341980147712.0,
    'wire': 291927516.0,
    'all-gather': 405.0,
    'reduce-scatter': 108.0,
    'all-reduce': 41.0,
    'all-to-all': 7.0,
  },
  ('small', 'v4-128'): {
    'flops': 84192264192.0,
    'wire': 282038933.25,
    'all-gather': 349.0,
    'reduce-scatter': 20.0,
    'all-reduce': 95.0,
    'all-to-all': 7.0,
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
@pytest.mark.parametrize(('size', 'slice_name'), list(PINNED))
def test_the_costs_of_a_step_are_those_pinned(size, slice_name, tmp_path):
  costs = compiled(size, slice_name, tmp_path)['costs']
  assert summary(costs) == pytest.approx(PINNED[size, slice_name], rel=0.02)


def summary(costs):
  counts = collections.Counter()
  for collective in costs['collectives']:
    counts[collective['kind']] += collective['count']
  return {'flops': costs['matmul_flops'], 'wire': costs['wire_bytes'], **counts}


@pytest.mark.parametrize(
  ('name', 'chips', 'hosts'),
  [('v4-128', 64, 16), ('v4-8', 4, 1), ('v5litepod-16', 16, 4), ('v5p-128', 64, 16)],
)
def test_slices_by_their_public_names(name, chips, hosts):
  slice_ = topologies.get(name)
  assert (slice_.num_chips, slice_.num_hosts) == (chips, hosts)


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


@pytest.mark.parametrize(
  ('message', 'want'),
  [
    ('Ran out of memory. Used 31.41G of 30.75G hbm. Exceeded', int(31.41 * 2**30)),
    (
      'the total memory required for HLO temporaries (54.80G) exceeds available HBM (30.75G).',
      int(54.80 * 2**30),
    ),
    ('Used 512.00M of 30.75G hbm', 512 * 2**20),
    ('something else', None),
  ],
)
def test_how_much_a_refused_program_wanted(message, want):
  assert precompile.used_bytes(message) == want
