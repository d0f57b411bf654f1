"""From a compiled program's costs to time: what one step takes at best, and what a run costs."""

import dataclasses
from typing import Any

from aya_train.models import t5_config
from aya_train.objectives import objective
from aya_train.tpu import hlo_costs, topologies


def model_flops(
  config: t5_config.T5Config, rows: int, tokens: objective.RowTokens, *, frozen: bool = False
) -> float:
  """Matrix FLOPs that a training step of the model needs: forward once, backward twice.

  Nothing recomputed, padding and masked scores included (the convention of PaLM's MFU, Chowdhery et
  al. 2022, appendix B), embedding lookups free.

  Args:
    config: the network.
    rows: of the batch.
    tokens: of a row.
    frozen: whether the network's own weights are not trained, and so have no gradients: what an
      adapter needs, whose own products are not counted.
  """
  joined = config.num_heads * config.head_dim
  projection = config.emb_dim * joined
  mlp = config.emb_dim * config.mlp_dim * (len(config.mlp_activations) + 1)
  # Multiply-adds of one row, forward.
  sources = sum(tokens.encoded)
  encoder = sources * (4 * projection + mlp)
  decoder = sum(tokens.decoded) * (6 * projection + mlp)
  decoder += sources * 2 * projection if tokens.decoded else 0
  by_weights = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
  by_weights += tokens.scored * config.emb_dim * config.vocab_size
  encoder = sum(2 * n * n * joined for n in tokens.encoded)
  decoder = sum(2 * n * (n + sources) * joined for n in tokens.decoded)
  attention = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
  return rows * ((4.0 if frozen else 6.0) * by_weights + 6.0 * attention)


@dataclasses.dataclass(frozen=True)
class StepEstimate:
  """A step on a slice, at the published rates of its chips.

  Attributes:
    compute_seconds, hbm_seconds, wire_seconds: each resource alone, fully used.
    step_seconds: the largest of the three: a lower bound, reached if they overlap perfectly.
    mfu_bound: the model's FLOPs over those that the chips could do in that time.
    array_seconds: as `hbm_seconds`, if nothing stayed on the chip (hlo_costs.Costs.array_bytes).
    strict_mfu_bound: the bound with `array_seconds` in the place of `hbm_seconds`.
    model_flops: of one chip and step.
    tokens_per_second: of the slice, both sides, padding included.
    rows_per_second: of the slice; packed rows where the recipe packs.
    steps: of the recipe.
    hours, chip_hours, dollars: of the whole recipe; dollars at list price.
  """

  compute_seconds: float
  hbm_seconds: float
  wire_seconds: float
  step_seconds: float
  mfu_bound: float
  array_seconds: float
  strict_mfu_bound: float
  model_flops: float
  tokens_per_second: float
  rows_per_second: float
  steps: int
  hours: float
  chip_hours: float
  dollars: float

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def estimate(
  costs: hlo_costs.Costs,
  slice_: topologies.Slice,
  config: t5_config.T5Config,
  rows: int,
  tokens: objective.RowTokens,
  steps: int,
  *,
  frozen: bool = False,
) -> StepEstimate:
  """The roofline of a compiled step (Williams et al. 2009), with the interconnect as third roof."""
  chip = slice_.chip
  seconds = (
    costs.matmul_flops / chip.flops,
    costs.hbm_bytes / chip.hbm_bandwidth,
    costs.wire_bytes / chip.ici_bandwidth,
  )
  step = max(seconds)
  array_seconds = costs.array_bytes / chip.hbm_bandwidth
  flops = model_flops(config, rows, tokens, frozen=frozen) / slice_.num_chips
  hours = step * steps / 3600
  return StepEstimate(
    *seconds,
    step_seconds=step,
    mfu_bound=flops / (step * chip.flops),
    array_seconds=array_seconds,
    strict_mfu_bound=flops / (max(step, array_seconds) * chip.flops),
    model_flops=flops,
    tokens_per_second=rows * tokens.total / step,
    rows_per_second=rows / step,
    steps=steps,
    hours=hours,
    chip_hours=hours * slice_.num_chips,
    dollars=hours * slice_.num_chips * chip.dollars,
  )
