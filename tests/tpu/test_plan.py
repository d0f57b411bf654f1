"""What `plan` tries, keeps and writes, with a compiler of a few lines in libtpu's place."""

import dataclasses
import types

import gin
import jax
import pytest

from aya_train import config, memory_limits
from aya_train.models import t5_config
from aya_train.objectives import objective
from aya_train.tpu import hlo_costs, plan, precompile, roofline, topologies

V4_128 = topologies.get('v4-128')
GIB = topologies.GIB


class Compiler:
  """A program fits if few names are saved; its time is that of its mesh."""

  def __init__(self, seconds, room):
    self.calls, self.seconds, self.room = [], seconds, room

  def __call__(self, candidate, base, slice_):
    assert candidate.apply(base, slice_).num_microbatches == candidate.num_microbatches
    self.calls.append(candidate)
    peak = (20 + 4 * len(candidate.names)) * GIB // candidate.num_microbatches
    if peak > self.room * GIB:
      return plan.Trial(candidate, peak, None, None, 'does not fit')
    step = self.seconds.get((candidate.data, candidate.fsdp, candidate.model), 9.0)
    return plan.Trial(candidate, peak, step, 1 / step, 'fits', 2 * step)


@pytest.fixture
def search(monkeypatch, tmp_path):
  """Searches for 8 chips, which the CPU's devices stand for."""
  monkeypatch.setattr(topologies.Slice, 'devices', lambda self: jax.devices())
  files = ['models/mt5_small.gin', 'recipes/sft_aya.gin', 'hardware/tpu_v4_8.gin']
  mesh = "MESH_SHAPE = {'data': 1, 'fsdp': 8, 'model': 1}"
  config.parse(files, [mesh, 'NUM_MICROBATCHES = 1'], [], require_all=False)

  def run(compiler, **kwargs):
    monkeypatch.setattr(plan, '_try', compiler)
    monkeypatch.setattr(precompile, 'fixed_bytes', lambda job: {'parameters': GIB})
    return plan.plan(topologies.get('v4-16'), tmp_path, **kwargs)

  yield run
  gin.clear_config()


def test_the_fastest_mesh_that_fits_is_written(search):
  compiler = Compiler({(4, 2, 1): 1.0, (2, 4, 1): 1.5}, room=100)
  text = search(compiler, max_compilations=20).read_text()
  assert "MESH_SHAPE = {'data': 4, 'fsdp': 2, 'model': 1}" in text
  assert len({(c.data, c.fsdp, c.model) for c in compiler.calls}) == len(compiler.calls) > 4


def test_what_does_not_fit_is_cut_before_anything_is_recomputed(search):
  compiler = Compiler({}, room=12)
  text = search(compiler, max_compilations=3).read_text()
  assert [(len(c.names), c.num_microbatches) for c in compiler.calls] == [(6, 1), (6, 2), (6, 4)]
  assert '\nNUM_MICROBATCHES = 4' in text and '\nREMAT_' not in text


@pytest.fixture
def base(monkeypatch):
  """A job of 256 rows that saves 256 GiB in all."""
  monkeypatch.setattr(plan.Candidate, 'apply', lambda self, base, slice_: (self, base))
  sizes = {'query': 2, 'key': 2, 'value': 2, 'attention': 2, 'wi': 5, 'residual': 3}
  monkeypatch.setattr(
    precompile,
    'saved_bytes',
    lambda job: {name: 16 * n * GIB // job[0].num_microbatches for name, n in sizes.items()},
  )
  return dataclasses.make_dataclass('Base', ['batch_size'])(256)


def starts(monkeypatch, base, fixed):
  monkeypatch.setattr(precompile, 'fixed_bytes', lambda job: {'parameters': 0, 'rest': fixed * GIB})
  return plan.first_candidates((1, 16, 1), base, topologies.get('v4-32'))


def test_a_search_begins_with_what_shapes_say_fits(monkeypatch, base):
  # 30.75 / 1.1 - 10 = 17.95 GiB for 256 GiB of saved arrays: 16 parts, or 8 without half of them.
  found, weights = starts(monkeypatch, base, fixed=10)
  assert weights == 10 * GIB
  assert [(c.num_microbatches, len(c.names)) for c in found] == [(16, 6), (8, 2)]


def test_a_mesh_whose_weights_do_not_fit_is_not_compiled(monkeypatch, base):
  assert starts(monkeypatch, base, fixed=31) == ([], 31 * GIB)
  # Room for weights and little else: in as many parts as there are rows, nothing saved.
  found, _ = starts(monkeypatch, base, fixed=30)
  assert [(c.num_microbatches, c.names) for c in found] == [(16, ())]


def test_a_search_goes_on_where_it_stopped(search):
  whole = Compiler({}, room=100)
  search(whole, max_compilations=2)
  again = Compiler({}, room=100)
  search(again, max_compilations=2)
  assert len(whole.calls) == 2 and len(again.calls) == 2
  assert not set(whole.calls) & set(again.calls)


def test_nothing_fits(search):
  with pytest.raises(ValueError, match='nothing fits v4-16; take a larger slice'):
    search(Compiler({}, room=0), max_compilations=3)


@pytest.mark.parametrize('where', ['attention_backward', 'fusion'])
def test_a_kernel_too_large_for_the_chip_ends_the_search(monkeypatch, base, where):
  overflow = memory_limits.Overflow('vmem', 21 * 2**20, 16 * 2**20, where)
  result = types.SimpleNamespace(overflow=overflow, fits=False, estimate=None)
  monkeypatch.setattr(precompile, 'compile_job', lambda *args: result)
  monkeypatch.setattr(precompile, 'on_chip_suggestions', lambda *args: ['another kernel'])
  candidate = plan.Candidate(1, 16, 1, (), 1)
  if where == 'attention_backward':
    with pytest.raises(
      ValueError, match=r'no mesh helps: attention_backward .* Try: another kernel'
    ):
      plan._try(candidate, base, V4_128)
  else:  # another mesh may do without this operation; no cut of what HBM holds will
    trial = plan._try(candidate, base, V4_128)
    assert 'fusion wants 21.00 MiB of the 16.00 MiB that there are in vmem' in trial.note
    assert plan._next(trial, base, V4_128) is None


@pytest.mark.parametrize('name', ['v4-8', 'v4-128', 'v5litepod-64', 'v5p-128', 'v6e-8', 'v4-2048'])
def test_meshes_hold_every_chip_and_divide_the_batch(name):
  slice_ = topologies.get(name)
  found = plan.meshes(slice_, 1024, 64)
  assert len(set(found)) == len(found) > 1
  for data, fsdp, model in found:
    assert data * fsdp * model == slice_.num_chips
    assert 1024 % (data * fsdp) == 0 and 64 % model == 0


def test_weights_gathered_over_about_sixteen_chips_come_first():
  assert plan.meshes(V4_128, 256, 64)[0] == (4, 16, 1)
  assert plan.meshes(topologies.get('v5litepod-64'), 256, 64)[0] == (8, 8, 1)
  assert plan.meshes(topologies.get('v6e-256'), 256, 64)[0] == (16, 16, 1)
  assert plan.meshes(topologies.get('v4-16'), 256, 64)[0] == (1, 8, 1)


def test_heads_that_tensor_parallelism_would_split_are_left_whole():
  assert {model for *_, model in plan.meshes(topologies.get('v4-32'), 256, 6)} == {1, 2}


def test_no_axis_of_the_torus_is_split():
  # 4 x 4 x 4 has no mesh with an axis of two: JAX refuses to build it.
  assert {model for *_, model in plan.meshes(V4_128, 256, 64)} == {1, 4}


def candidate(**changes):
  return dataclasses.replace(plan.Candidate(4, 16, 1, ('query', 'key', 'wi'), 1), **changes)


def fits(candidate, step, scheduled, peak):
  return plan.Trial(candidate, peak, step, 0.9, 'fits', scheduled)


def test_the_one_that_takes_least_as_scheduled_wins():
  quick = fits(candidate(), 1.0, 1.5, 30)
  assert min([quick, fits(candidate(), 0.9, 1.6, 1)], key=plan._cost) is quick
  assert min([quick, fits(candidate(), 1.1, 1.4, 40)], key=plan._cost) is not quick
  assert min([quick, fits(candidate(), 0.9, 1.5001, 40)], key=plan._cost) is not quick
  assert min([quick, fits(candidate(), 1.0, 1.5, 20)], key=plan._cost).peak_hbm == 20


@pytest.fixture
def job_of(monkeypatch):
  """The job of gin files and bindings for 8 chips, which the CPU's devices stand for."""
  monkeypatch.setattr(topologies.Slice, 'devices', lambda self: jax.devices())

  def parsed(hardware, *bindings, recipe='sft_aya'):
    files = ['models/mt5_small.gin', f'recipes/{recipe}.gin', hardware]
    config.parse(files, bindings, require_all=False)
    return precompile.job(topologies.get('v4-16'), check=False)

  yield parsed
  gin.clear_config()


OPTIONS = 'partitioning.Partitioner.compiler_options = {"xla_tpu_enable_latency_hiding": "true"}'


@pytest.mark.parametrize('bindings', [(), ('LOSS_CHUNK_LENGTH = 32',), (OPTIONS,)], ids=str)
@pytest.mark.parametrize('names', [(), ('query', 'wi'), t5_config.REMAT_NAMES], ids=len)
@pytest.mark.parametrize(('mesh', 'parts'), [((1, 8, 1), 1), ((4, 2, 1), 2), ((2, 2, 2), 4)])
def test_the_file_written_is_what_was_compiled(job_of, tmp_path, mesh, parts, names, bindings):
  base, slice_ = job_of('hardware/tpu_v4_8.gin', *bindings), topologies.get('v4-16')
  chosen = plan.Candidate(*mesh, names, parts)
  best = fits(chosen, 1.0, 1.5, 20 * GIB)
  path = tmp_path / 'found.gin'
  path.write_text(plan.hardware_file(slice_, best, [best], base))
  assert described(job_of(str(path))) == described(chosen.apply(base, slice_))


def test_sentence_encoders_are_planned_too(job_of, tmp_path):
  recipe, slice_ = 'embed_gtr_finetune', topologies.get('v4-16')
  base = job_of('hardware/tpu_v4_8.gin', recipe=recipe)
  chosen = plan.Candidate(1, 8, 1, ('wi',), 16)
  best = fits(chosen, 1.0, 1.5, 20 * GIB)
  path = tmp_path / 'found.gin'
  path.write_text(plan.hardware_file(slice_, best, [best], base))
  found, wanted = job_of(str(path), recipe=recipe), chosen.apply(base, slice_)
  assert found.model.config == wanted.model.config and found.model.config.remat_save_names == (
    'wi',
  )
  assert found.num_microbatches == 16 and all(precompile.saved_bytes(wanted).values())


def described(job):
  parts = job.partitioner
  return {
    **vars(job),
    'model': (job.model.config, job.model.loss_chunk_length),
    'partitioner': {**vars(parts), 'mesh': parts.mesh} | {'mesh_shape': dict(parts.mesh_shape)},
    **{name: type(getattr(job, name)) for name in ('optimizer', 'learning_rate_fn')},
  }


def test_the_file_written_includes_what_all_tpus_share(job_of):
  base = job_of('hardware/tpu_v4_8.gin')
  best = fits(candidate(names=t5_config.REMAT_NAMES), 1.0, 1.5, 20 * GIB)
  other = plan.Trial(candidate(data=64, fsdp=1), 90 * GIB, None, None, 'does not fit')
  text = plan.hardware_file(V4_128, best, [best, other], base)
  assert '#   data  64 fsdp   1 model  1 microbatches 1  90.0 GiB  does not fit' in text
  said = [line for line in text.splitlines() if line and not line.startswith('#')]
  mesh = "MESH_SHAPE = {'data': 4, 'fsdp': 16, 'model': 1}"
  assert said == ["include 'hardware/tpu.gin'", mesh]


def test_a_roofline_is_bound_by_the_slowest_of_the_three():
  cfg = t5_config.T5Config(
    vocab_size=256, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, mlp_activations=('gelu',),
    num_encoder_layers=1, num_decoder_layers=1,
  )  # fmt: skip
  # Multiply-adds of a row with 4 + 2 tokens: projections 8x8, MLP 2 x 8x16, attention over 8 wide.
  encoder = 4 * (4 * 64 + 256) + 2 * 4 * 4 * 8
  decoder = 2 * (6 * 64 + 256) + 4 * 2 * 64 + 2 * 2 * 6 * 8
  flops = 3 * 6 * (encoder + decoder + 2 * 8 * 256)
  assert roofline.model_flops(cfg, 3, objective.RowTokens((4,), (2,), 2)) == flops
  # Under an adapter weights have no gradients, scores and what they weigh have.
  attention = 2 * 4 * 4 * 8 + 2 * 2 * 6 * 8
  few = roofline.model_flops(cfg, 3, objective.RowTokens((4,), (2,), 2), frozen=True)
  assert few == flops * 4 / 6 + 3 * 2 * attention
  # Two answers to one prompt; an encoder alone, which reads each text by itself.
  answers = objective.RowTokens((4,), (2, 2), 4)
  second = decoder - 4 * 2 * 64 + 2 * 8 * 256
  assert roofline.model_flops(cfg, 3, answers) == flops + 3 * 6 * second
  texts = objective.RowTokens((4, 4))
  assert roofline.model_flops(cfg, 3, texts) == 3 * 6 * 2 * encoder
  for slowest in range(3):
    work = [1.0, 1.0, 1.0]
    work[slowest] = 7.0
    costs = hlo_costs.Costs(
      matmul_flops=work[0] * 275e12,
      hbm_bytes=work[1] * 1.2288e12,
      array_bytes=14 * 1.2288e12,
      collectives=(hlo_costs.Collective('all-gather', 4, 1, work[2] * 300e9),),
      matmul_flops_by_place={},
      hbm_bytes_by_place={},
    )
    tokens = objective.RowTokens((4,), (2,), 2)
    found = roofline.estimate(costs, V4_128, cfg, 3, tokens, 3600)
    assert found.step_seconds == pytest.approx(7) and found.hours == pytest.approx(7)
    assert found.mfu_bound == pytest.approx(flops / 64 / (7 * 275e12))
    assert found.strict_mfu_bound == pytest.approx(found.mfu_bound / 2)
    assert found.tokens_per_second == pytest.approx(18 / 7)
    assert found.chip_hours == pytest.approx(7 * 64)
