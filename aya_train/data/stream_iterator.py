"""The iterator of training batches, whose state names the stream and goes on with other hosts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain

from aya_train.data import feature_converters, resplit

logger = logging.getLogger(__name__)


class StreamIterator(grain.DatasetIterator):
  """The pipeline's iterator; its state names the stream, so that no other is continued with it."""

  def __init__(
    self,
    open_batches: Callable[[Sequence[resplit.Phase]], grain.DatasetIterator],
    identity: dict[str, Any],
  ):
    self._open_batches = open_batches
    self._identity = identity
    self._begin([])

  def _begin(self, history: Sequence[resplit.Phase]) -> None:
    self._history = list(history)
    self._batches = self._open_batches(self._history)
    super().__init__(self._batches)

  def __next__(self) -> feature_converters.Batch:
    return next(self._batches)

  def get_state(self) -> dict[str, Any]:
    state = {'stream': self._identity, 'position': self._batches.get_state()}
    if self._history:
      state['history'] = [phase.to_json() for phase in self._history]
    return state

  def set_state(self, state: Mapping[str, Any]) -> None:
    self._check(state['stream'], self._identity)
    history = _history(state)
    if history != self._history:
      self._batches.close()
      self._begin(history)
    self._batches.set_state(state['position'])

  def set_state_of_hosts(self, states: Sequence[Mapping[str, Any]]) -> None:
    """Goes on where a run stopped, on these hosts or on others.

    With another number of parts the rest of the data is shared out anew (resplit.py): over all
    hosts, before and after, each example of an epoch is given out once.

    Args:
      states: what `get_state()` gave on each host of that run.

    Raises:
      ValueError: a state of another configuration, or states that are not of one run.
    """
    # Hosts that read the same part have the same state.
    saved = {state['stream']['host']: state for state in states}
    if (own := saved.get(self._identity['host'])) is not None:
      return self.set_state(own)
    anywhere = {**self._identity, 'host': 'any'}
    for state in states:
      self._check({**state['stream'], 'host': 'any'}, anywhere)
    names = [f'{part} of {len(saved)}' for part in range(len(saved))]
    histories = [_history(state) for state in states]
    if sorted(names) != sorted(saved) or any(h != histories[0] for h in histories):
      raise ValueError(
        f'the positions in the data are those of the parts {sorted(saved)}, expected '
        f'{len(saved)} parts of one run: copy the checkpoint again, or start the data anew.'
      )
    parts = int(self._identity['host'].split(' of ')[1])
    whole = self._identity.get('same_source_batches')
    block = self._identity['batch_size'] // len(names) if whole else 1
    start = resplit.first_draw(histories[0], len(names), block)
    phase = resplit.Phase(start, tuple(saved[name]['position'] for name in names))
    self._batches.close()
    self._begin([*histories[0], phase])
    open_rows = sum(map(resplit.num_open_rows, phase.positions))
    logger.info(
      'the data were read in %d parts, and go on in %d: %d examples are behind, %d rows that were '
      'packed come first',
      *(len(names), parts, sum(p.num_taken for p in self._history), open_rows),
    )

  def _check(self, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [
      f'{k}: saved {saved.get(k)!r}, now {v!r}' for k, v in wanted.items() if saved.get(k) != v
    ]
    if differing:
      raise ValueError(
        f'the state of the data iterator belongs to another stream ({"; ".join(differing)}). '
        'Restore it with the configuration, and the version, that wrote it, or start the data anew.'
      )


def _history(state: Mapping[str, Any]) -> list[resplit.Phase]:
  return [resplit.Phase.from_json(phase) for phase in state.get('history', [])]
