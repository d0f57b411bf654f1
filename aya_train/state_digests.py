"""Digests of a training state in metrics.jsonl: what a repetition of the run is held to."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from aya_train import train_state
from aya_train.checkpoint import digests

KIND = 'state_digest'  # of records in metrics.jsonl


def of_state(state: train_state.TrainState) -> dict[str, str]:
  """The digest of each array of a state by its path; the same on all hosts, which all call it."""
  return digests.of_tree(state.saved)


def record(state: train_state.TrainState) -> dict[str, str]:
  """What metrics.jsonl gets: the digest of the whole state, and what it was computed with."""
  return {'digest': digests.combined(of_state(state)), **computed_with()}


def computed_with() -> dict[str, str]:
  """Other devices or another JAX may round otherwise, so their digests may differ."""
  return {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}


def recorded(lines: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
  """Of a run's metrics the digests, by step."""
  return {line['step']: line for line in lines if line['kind'] == KIND}
