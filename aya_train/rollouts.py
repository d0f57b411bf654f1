"""Answers that a policy gives before each step of reinforcement learning, and their rewards."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_train import decoding, hosts, partitioning, reward_sources, row_compaction
from aya_train.checkpoint import formats, reading
from aya_train.models import lora, network
from aya_train.objectives import objective, reward, rloo

Array = jax.Array
Batch = Mapping[str, Array]
ADAPTER_OFF = 'adapter_off'
_PADDING = 0


class Rollouts:
  """Draws answers with a key-value cache, and asks for their rewards.

  The draws depend on the run's seed, the step and the row, so a run that is gone on with draws what
  it would have drawn. A function or a server is asked by the first host, once a step.
  """

  def __init__(
    self,
    *,
    source: str,
    reference: str | None = None,
    reward_model: reward.RewardModel | None = None,
  ):
    """Opens nothing.

    Args:
      source: `MODULE:FUNCTION`, `http(s)://...` (reward_sources.py), or the path of a checkpoint of
        a reward model.
      reference: the path of a checkpoint, of which a second copy is held in memory; 'adapter_off':
        the policy without its adapter; None: none.
      reward_model: objective of that checkpoint.
    """
    self._source, self._reference, self._reward_model = source, reference, reward_model
    self._functions: dict[str, Any] = {}
    self._rewards: Any = None
    self._reference_params: Any = None
    self._reward_params: Any = None

  def check(self, model: rloo.RlooModel) -> None:
    """Refuses what cannot be had.

    Raises:
      reward_sources.RewardError: no such function, or no address.
      FileNotFoundError, ValueError: no checkpoint, or of another network or vocabulary; no adapter
        that could be off; a reference is needed and none is named.
    """
    if model.kl_weight and self._reference is None:
      raise ValueError(
        'RLOO_KL_WEIGHT is above 0, and nothing says which model the policy is to stay near: '
        "REFERENCE_CHECKPOINT_PATH, or 'adapter_off' with recipes/lora.gin"
      )
    if self._reference == ADAPTER_OFF and model.adapter is None:
      raise ValueError(
        "REFERENCE_CHECKPOINT_PATH = 'adapter_off' needs an adapter that is trained: add "
        '--gin_file=recipes/lora.gin, or name a checkpoint'
      )
    if model.kl_weight and self._reference not in (None, ADAPTER_OFF):
      self._checked(self._reference, _plain(model))
    if reward_sources.is_one(self._source):
      self._reward_source()
    else:
      assert self._reward_model is not None
      self._checked(self._source, self._reward_model)

  def _reward_source(self) -> Any:
    """The function or the server; loaded once."""
    if self._rewards is None:
      self._rewards = reward_sources.load(self._source)
    return self._rewards

  def _checked(self, path: str | None, model: objective.Objective) -> formats.Detected:
    source = formats.detect(path or '')
    reading.check(source, objective.parameter_axes(model)[0], model)
    return source

  def draw(
    self,
    model: rloo.RlooModel,
    params: Any,
    batch: Batch,
    key: Callable[[], Array],
    partitioner: partitioning.Partitioner,
  ) -> Batch:
    """See `rloo.Rollouts`.

    Raises:
      reward_sources.RewardError: rewards cannot be had, or are no finite numbers.
    """
    inputs = batch['inputs']
    answers = self._compiled('sample', model, partitioner)(params, inputs, key())
    if self._reference == ADAPTER_OFF:
      base, of_base = params, 'base'
    elif model.kl_weight and self._reference is not None:
      if self._reference_params is None:
        source = self._checked(self._reference, _plain(model))
        self._reference_params = reading.read_for(_plain(model), partitioner, source)
      base, of_base = self._reference_params, 'reference'
    else:
      base, of_base = None, ''
    policy = self._compiled('policy', model, partitioner)(params, inputs, answers)
    reference = policy
    if of_base:
      reference = self._compiled(of_base, model, partitioner)(base, inputs, answers)
    return {
      **batch,
      'answers': answers,
      'rewards': self._rewarded(model, batch, answers, partitioner),
      'policy': policy,
      'reference': reference,
    }

  def _compiled(
    self, what: str, model: rloo.RlooModel, partitioner: partitioning.Partitioner
  ) -> Any:
    """The compiled function of a name."""
    if what not in self._functions:
      self._functions[what] = self._made(what, model, partitioner)
    return self._functions[what]

  def _made(self, what: str, model: rloo.RlooModel, partitioner: partitioning.Partitioner) -> Any:
    if what == 'gather':
      return partitioner.jit(lambda *x: x, out_shardings=partitioner.replicated)
    if what == 'sample':
      unbounded = dataclasses.replace(model, max_new_tokens=None)  # of other decodings

      def decode(cache: Any, tokens_to_logits: Any, **options: Any) -> Any:
        return decoding.temperature_sample(
          cache,
          _WithoutPadding(tokens_to_logits),
          num_decodes=model.num_answers,
          temperature=model.temperature,
          **options,
        )

      def sample(params: Any, inputs: Array, key: Array) -> Array:
        return unbounded.predict_batch(
          params,
          {'encoder_input_tokens': inputs},
          key,
          jnp.arange(len(inputs)),
          max_decode_length=model.answer_length,
          decode_fn=decode,
        )[0]

      return partitioner.jit(sample)
    if what == 'reward':
      assert self._reward_model is not None
      scores = self._reward_model.scores

      def score(params: Any, inputs: Array, answers: Array) -> Array:
        words = jnp.pad(answers[..., :-1], ((0, 0), (0, 0), (1, 0)))
        return scores(params, inputs, words, answers)

      return partitioner.jit(score)
    of_model = _plain(model) if what == 'reference' else model

    def log_likelihoods(params: Any, inputs: Array, answers: Array) -> Array:
      params = lora.base_alone(params) if what == 'base' else params
      return of_model.answer_log_likelihoods(params, inputs, answers)

    return partitioner.jit(log_likelihoods)

  def _rewarded(
    self,
    model: rloo.RlooModel,
    batch: Batch,
    answers: Array,
    partitioner: partitioning.Partitioner,
  ) -> Array:
    """Rewards of the answers, float32 [B, K]."""
    if not reward_sources.is_one(self._source):
      assert self._reward_model is not None
      if self._reward_params is None:
        source = self._checked(self._source, self._reward_model)
        self._reward_params = reading.read_for(self._reward_model, partitioner, source)
      return self._compiled('reward', model, partitioner)(
        self._reward_params, batch['inputs'], answers
      )
    gather = self._compiled('gather', model, partitioner)
    prompts, ids, weights = map(
      np.asarray, gather(batch['inputs'], answers, batch['example_weights'])
    )
    found: list[list[float]] = []
    with hosts.together():
      if hosts.is_first():
        found = self._asked(model, prompts, ids, weights)
    rewards = np.asarray(hosts.first_says(found), np.float32)
    part, parts = hosts.here(partitioner.data_shard).part
    rows = len(rewards) // parts
    return partitioner.to_global({'rewards': rewards[part * rows : (part + 1) * rows]})['rewards']

  def _asked(
    self, model: rloo.RlooModel, prompts: np.ndarray, ids: np.ndarray, weights: np.ndarray
  ) -> list[list[float]]:
    """Rewards of the answers to all prompts that are some; 0 for those that only fill a batch."""
    texts = [str(model.input_vocabulary.decode(_tokens(row, 1))) for row in prompts]
    end = model.answer_end
    real = np.flatnonzero(weights)
    pairs = [
      (texts[i], str(model.output_vocabulary.decode(_tokens(answer, end))))
      for i in real
      for answer in ids[i]
    ]
    rewards = self._reward_source()
    numbers = rewards([p for p, _ in pairs], [a for _, a in pairs]) if pairs else []
    found = np.zeros(ids.shape[:2])
    found[real] = np.reshape(numbers, (len(real), ids.shape[1]))
    return [row.tolist() for row in found]


@dataclasses.dataclass(frozen=True)
class _WithoutPadding:
  """A padding id within an answer would neither be scored nor looked at."""

  model: Any

  def __call__(self, *state: Any) -> tuple[Array, Any]:
    logits, cache = self.model(*state)
    return logits.at[:, _PADDING].set(-jnp.inf), cache

  def narrowed(self, take: row_compaction.Take) -> '_WithoutPadding':
    return _WithoutPadding(self.model.narrowed(take))


def _tokens(row: np.ndarray, end: int) -> list[int]:
  """Ids before the end of sequence and the padding."""
  ids = row[row > 0].tolist()
  return ids[: ids.index(end)] if end in ids else ids


def _plain(model: rloo.RlooModel) -> rloo.RlooModel:
  """The model without an adapter, whose weights the reference has."""
  if model.adapter is None:
    return model
  return dataclasses.replace(model, module=network.Transformer(model.config))
