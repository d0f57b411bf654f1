"""`aya-train plan`: finds mesh, remat and microbatches for a slice by compiling, within its HBM.

Every candidate is the trainer's own step, compiled (aya_train/tpu/precompile.py). What was tried is
kept beside the result, so that a stopped search goes on where it was.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import config, gin_text, partitioning
from aya_train.models import t5_config
from aya_train.tasks import storage
from aya_train.tpu import precompile, topologies

logger = logging.getLogger(__name__)
GIB = topologies.GIB
# What every TPU's hardware file includes; a plan says what differs from it.
SHARED_FILE = 'hardware/tpu.gin'
_COMPILER_OPTIONS = 'partitioning.Partitioner.compiler_options'


@dataclasses.dataclass(frozen=True)
class Candidate:
  """Settings of one compilation; `names` empty means that layers are recomputed in full."""

  data: int
  fsdp: int
  model: int
  names: tuple[str, ...]
  num_microbatches: int

  @property
  def mesh_shape(self) -> dict[str, int]:
    return {'data': self.data, 'fsdp': self.fsdp, 'model': self.model}

  def apply(self, job: precompile.StepJob, slice_: topologies.Slice) -> precompile.StepJob:
    """The job with these settings."""
    cfg = dataclasses.replace(
      job.model.config,
      remat_policy='save_named' if self.names else 'full',
      remat_save_names=self.names or t5_config.REMAT_NAMES,
      attention_kernel='fused',
    )
    partitioner = partitioning.Partitioner(
      self.mesh_shape,
      partitioning.fully_sharded_logical_axis_rules(parameters_over_data=self.data > 1),
      gathered_axes=('data',) if self.data > 1 else (),
      compiler_options=job.partitioner.compiler_options or _shared_settings()[_COMPILER_OPTIONS],
      devices=job.partitioner.devices,
    )
    return dataclasses.replace(
      job,
      model=job.model.on_network(cfg),
      partitioner=partitioner,
      num_microbatches=self.num_microbatches,
    )


DOES_NOT_FIT, TOO_LARGE = 'does not fit', 'too large, by shapes alone'


@dataclasses.dataclass(frozen=True)
class Trial:
  """A candidate and what its compilation said; seconds None where it does not fit.

  Attributes:
    step_seconds: the largest of the times at the three roofs.
    scheduled_seconds: as `hlo_schedule.Playback.seconds`.
  """

  candidate: Candidate
  peak_hbm: int | None
  step_seconds: float | None
  mfu_bound: float | None
  note: str
  scheduled_seconds: float | None = None

  def line(self) -> str:
    c = self.candidate
    peak = '?' if self.peak_hbm is None else f'{self.peak_hbm / GIB:.1f}'
    outcome = self.note
    if self.step_seconds is not None and self.mfu_bound is not None:
      outcome = f'{self.step_seconds:.3f} s, MFU at most {100 * self.mfu_bound:.1f} %'
    if self.scheduled_seconds is not None:
      outcome += f', {self.scheduled_seconds:.3f} s as scheduled'
    names = ' '.join(c.names) or 'nothing (full remat)'
    return (
      f'data {c.data:3} fsdp {c.fsdp:3} model {c.model:2} microbatches {c.num_microbatches} '
      f'{peak:>5} GiB  {outcome}; saves {names}'
    )


def meshes(slice_: topologies.Slice, batch_size: int, heads: int) -> list[tuple[int, int, int]]:
  """(data, fsdp, model) that fit the torus and the batch, those first that usually win.

  Each axis of the torus belongs to one axis of the mesh: JAX builds no others, and rings are whole.
  Gathering weights
  over about 16 chips comes first: over more, XLA sums gradients by all-reduces of twice the bytes.
  Copies of weights come before tensor parallelism.
  """
  found = set()
  for owners in itertools.product(range(3), repeat=len(slice_.shape)):
    sizes = [1, 1, 1]
    for owner, size in zip(owners, slice_.shape, strict=True):
      sizes[owner] *= size
    data, fsdp, model = sizes
    if model <= 8 and heads % model == 0 and batch_size % (data * fsdp) == 0:
      found.add((data, fsdp, model))
  return sorted(found, key=lambda m: (m[2], abs(math.log2(m[1] / 16)), -m[1]))


def plan(slice_: topologies.Slice, output_dir: epath.PathLike, max_compilations: int = 8) -> Any:
  """Searches, and writes plan_<slice>.gin with the best settings and the table of what was tried.

  For each mesh that shapes alone do not rule out, two ways to live within HBM are compiled:
  everything saved and the batch in as many parts as that takes, and half as many parts with fewer
  names saved. Shapes say where to begin; a program that is too large says by how much. What an
  earlier search tried is not compiled again and does not count.

  Returns:
    The path of the gin file.

  Raises:
    ValueError: no candidate fits, or the objective does not tell what it computes.
  """
  folder = epath.Path(output_dir)
  folder.mkdir(parents=True, exist_ok=True)
  base = precompile.job(slice_, check=False)
  if base.tokens is None:
    raise ValueError(
      f'plan compares times, and what {type(base.model).__name__} takes a step is not known from '
      'its program alone: choose '
      f'MESH_SHAPE by hand, and see with `aya-train precompile --topology={slice_.name}` what fits'
    )
  cache = folder / f'plan_{slice_.name}.json'
  known = _read(cache)
  trials: list[Trial] = []
  left = max_compilations
  for mesh in meshes(slice_, base.batch_size, base.model.config.num_heads):
    starts, weights = first_candidates(mesh, base, slice_)
    if not starts:
      trial = Trial(Candidate(*mesh, (), 1), weights, None, None, TOO_LARGE)
      trials.append(trial)
      print(trial.line(), flush=True)
    for start in starts:
      candidate: Candidate | None = start
      while candidate is not None:
        key = _key(candidate)
        if key not in known:
          if left <= 0:
            break
          left -= 1
          known[key] = dataclasses.asdict(_try(candidate, base, slice_))
          _write(cache, known)
        trial = _trial(known[key])
        if trial in trials:
          break
        trials.append(trial)
        print(trial.line(), flush=True)
        candidate = _next(trial, base, slice_)
  fitting = [t for t in trials if t.step_seconds is not None]
  if not fitting:
    lines = '\n'.join(t.line() for t in trials)
    by_hbm = any(t.note in (DOES_NOT_FIT, TOO_LARGE) for t in trials)
    advice = '; take a larger slice' if by_hbm else ''
    raise ValueError(f'nothing fits {slice_.name}{advice}. Tried:\n{lines}')
  best = min(fitting, key=_cost)
  path = folder / f'plan_{slice_.name}.gin'
  storage.write_atomically(path, hardware_file(slice_, best, trials, base))
  return path


def _cost(trial: Trial) -> tuple[float, float, int]:
  """Orders the trials that fit, best first."""
  return (
    round(trial.scheduled_seconds or trial.step_seconds or 0, 3),
    round(trial.step_seconds or 0, 3),
    trial.peak_hbm or 0,
  )


def _try(candidate: Candidate, base: precompile.StepJob, slice_: topologies.Slice) -> Trial:
  job = candidate.apply(base, slice_)
  try:
    result = precompile.compile_job(slice_, job, dataclasses.asdict(candidate))
  except Exception as error:  # a candidate that XLA cannot compile is a row of the table
    return Trial(candidate, None, None, None, f'not compiled: {str(error).splitlines()[0][:120]}')
  overflow = result.overflow
  if overflow is not None and overflow.on_chip:
    if 'attention' in overflow.where:  # the kernel works on one head, whatever the mesh
      advice = '; '.join(precompile.on_chip_suggestions(job, overflow))
      raise ValueError(f'no mesh helps: {overflow}, which is on the chip. Try: {advice}')
    return Trial(candidate, None, None, None, f'does not compile: {overflow}')
  if not result.fits or result.estimate is None:
    return Trial(candidate, result.peak_hbm, None, None, DOES_NOT_FIT)
  estimate = result.estimate
  return Trial(
    candidate,
    result.peak_hbm,
    estimate.step_seconds,
    estimate.mfu_bound,
    'fits',
    None if result.schedule is None else result.schedule.seconds,
  )


def first_candidates(
  mesh: tuple[int, int, int], base: precompile.StepJob, slice_: topologies.Slice
) -> tuple[list[Candidate], int]:
  """Where to begin with a mesh, by the shapes of what a chip holds, and the bytes of its weights.

  No candidate means that nothing fits.
  """
  every, usable = tuple(t5_config.REMAT_NAMES), slice_.chip.usable_hbm
  rows = base.batch_size // (mesh[0] * mesh[1])
  all_parts = [n for n in (2**i for i in range(rows.bit_length())) if rows % n == 0]
  kinds = precompile.fixed_bytes(Candidate(*mesh, every, 1).apply(base, slice_))
  weights = sum(kinds.values())

  def fixed(parts: int) -> int:
    return weights + (kinds['parameters'] if parts > 1 else 0)  # sums of gradients

  def room(parts: int) -> float:
    # Logits, the layer at work and holes between arrays: a tenth of what shapes say.
    return usable / 1.1 - fixed(parts)

  def saved(names: tuple[str, ...], parts: int) -> int:
    sizes = precompile.saved_bytes(Candidate(*mesh, every, parts).apply(base, slice_))
    return sum(sizes[name] for name in names or ('residual',))

  whole = next((n for n in all_parts if saved(every, n) <= room(n)), None)
  starts = [] if whole is None else [Candidate(*mesh, every, whole)]
  if whole != 1:
    names, parts = list(every), (whole or 2 * all_parts[-1]) // 2
    for name in precompile.DROP_ORDER:
      if saved(tuple(names), parts) > room(parts):
        names.remove(name)
    # What does not fit with nothing saved in fewer parts does, if at all, in these.
    if names and saved(tuple(names), parts) <= room(parts):
      starts.append(Candidate(*mesh, tuple(names), parts))
    elif whole is None and fixed(parts) <= usable:
      starts.append(Candidate(*mesh, (), parts))
  return starts, weights


def _next(trial: Trial, base: precompile.StepJob, slice_: topologies.Slice) -> Candidate | None:
  """What to try after a candidate that does not fit; None where there is nothing."""
  candidate = trial.candidate
  if trial.note != DOES_NOT_FIT:
    return None
  parts = candidate.num_microbatches * 2
  can_halve = base.batch_size % (candidate.data * candidate.fsdp * parts) == 0
  if can_halve and candidate.names in ((), tuple(t5_config.REMAT_NAMES)):
    return dataclasses.replace(candidate, num_microbatches=parts)
  if not candidate.names:
    return None
  # A compiler that only says "too large" gets one name less.
  excess = (trial.peak_hbm or 0) - slice_.chip.usable_hbm
  saved = precompile.saved_bytes(candidate.apply(base, slice_))
  names, total = list(candidate.names), 0
  for name in precompile.DROP_ORDER:
    if name in names:
      names.remove(name)
      total += saved[name]
      if total >= excess:
        break
  return dataclasses.replace(candidate, names=tuple(names) if total >= excess else ())


def _key(candidate: Candidate) -> str:
  """Names a compilation: the candidate, everything else that gin says, and the compiler."""
  kept = ' '.join(field.name for field in dataclasses.fields(Trial))
  text = json.dumps(dataclasses.asdict(candidate)) + config.text() + topologies.compiler() + kept
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(cache: epath.Path, known: Mapping[str, Any]) -> None:
  """Whole or not at all: a search may be stopped at any time."""
  new = cache.with_name(cache.name + '.new')
  new.write_text(json.dumps(known, indent=2))
  new.replace(cache)


def _read(cache: epath.Path) -> dict[str, Any]:
  try:
    return json.loads(cache.read_bytes()) if cache.exists() else {}
  except ValueError as error:
    raise ValueError(f'{cache} is damaged ({error}): delete it to search again') from error


def _trial(record: Mapping[str, Any]) -> Trial:
  candidate = {**record['candidate'], 'names': tuple(record['candidate']['names'])}
  return Trial(**{**record, 'candidate': Candidate(**candidate)})


@functools.cache
def _shared_settings() -> Mapping[str, Any]:
  return gin_text.bindings((config.CONFIGS / SHARED_FILE).read_text())


def settings(job: precompile.StepJob) -> dict[str, Any]:
  """What a hardware file says so that the trainer makes this job's step, by gin's names."""
  cfg, partitioner = job.model.config, job.partitioner
  has_logits = hasattr(job.model, 'loss_chunk_length')
  return {
    'MESH_SHAPE': dict(partitioner.mesh_shape),
    'NUM_MICROBATCHES': None if job.num_microbatches == 1 else job.num_microbatches,
    'ATTENTION_KERNEL': cfg.attention_kernel,
    'REMAT_POLICY': cfg.remat_policy,
    'REMAT_SAVE_NAMES': cfg.remat_save_names,
    **({'LOSS_CHUNK_LENGTH': job.model.loss_chunk_length} if has_logits else {}),
    'partitioning.Partitioner.gathered_axes': partitioner.gathered_axes,
    _COMPILER_OPTIONS: dict(partitioner.compiler_options or {}),
    'partitioning.fully_sharded_logical_axis_rules.parameters_over_data': 'data'
    in partitioner.gathered_axes,
  }


def hardware_file(
  slice_: topologies.Slice, best: Trial, trials: Sequence[Trial], base: precompile.StepJob
) -> str:
  """The best candidate as a gin hardware file, with the table as comments.

  Args:
    slice_: where.
    best, trials: the candidate that is written, and all that were tried.
    base: the job that candidates were applied to.
  """
  shared, chosen = _shared_settings(), settings(best.candidate.apply(base, slice_))
  differ = {name: value for name, value in chosen.items() if shared.get(name) != value}
  table = '\n'.join(f'#   {trial.line()}' for trial in trials)
  shape = 'x'.join(map(str, slice_.shape))
  lines = [f'# {slice_.name}: {slice_.num_chips} chips, {shape}. Found by `aya-train plan` among:']
  lines.append(table)
  if any('.' in name for name in differ):
    lines += [
      'from __gin__ import dynamic_registration',
      '',
      'from aya_train import partitioning',
      '',
    ]
  lines += [f"include '{SHARED_FILE}'", '']
  lines += [f'{name} = {value!r}' for name, value in differ.items()]
  return '\n'.join(lines) + '\n'
