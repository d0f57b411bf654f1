"""Rows that packing makes of pairs of random lengths, and how long it takes.

    python -m benchmarks.packing --pairs 10000 --kinds exponential bimodal --json packing.json

Ours (best fit over windows, and first fit), Grain's packers with as many open rows, SeqIO's
`trim_and_pack_dataset`, and first-fit decreasing over all pairs at once, which is no stream: it
sorts by the sum of both lengths. Each makes the arrays of all rows of 1024 + 1024 tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from benchmarks import measurement

LENGTHS = {'inputs': 1024, 'targets': 1024}
MEANS = ('300/100', '200/200', '150/30')
_DRAWS: Mapping[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
  'exponential': lambda rng, mean, n: rng.exponential(mean, n),
  'lognormal': lambda rng, mean, n: rng.lognormal(np.log(mean) - 0.32, 0.8, n),
  'uniform': lambda rng, mean, n: rng.uniform(1, 2 * mean, n),
  'bimodal': lambda rng, mean, n: np.where(
    rng.random(n) < 0.8, rng.normal(0.4 * mean, 0.1 * mean, n), rng.normal(3.4 * mean, mean / 2, n)
  ),
  'tails': lambda rng, mean, n: (rng.pareto(1.5, n) + 1) * mean / 3,
}


def sizes(kind: str, means: tuple[int, int], count: int) -> np.ndarray:
  """int [count, 2] lengths of inputs and targets, 1 to 1024."""
  rng = np.random.default_rng(0)
  sides = [np.clip(_DRAWS[kind](rng, mean, count).astype(int), 1, 1024) for mean in means]
  return np.stack(sides, axis=1)


def examples(kind: str, means: tuple[int, int], count: int) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(1)
  return [
    {name: rng.integers(3, 32_000, n, np.int32) for name, n in zip(LENGTHS, pair, strict=True)}
    for pair in sizes(kind, means, count).tolist()
  ]


def _counted(open_rows: Callable[[], Iterable[object]]) -> measurement.Run:
  return lambda: {'rows': sum(1 for _ in open_rows())}


def ours(kind: str, means: tuple[int, int], count: int, packer: str = 'best') -> measurement.Run:
  import grain

  from aya_train.data import packing

  source = grain.MapDataset.source(examples(kind, means, count)).to_iter_dataset(
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  if packer == 'first':
    size = packing.OPEN_ROWS
    ds = packing.FirstFitPackIterDataset(source, lengths=LENGTHS, num_rows=size, seed=0)
  else:
    ds = packing.BestFitPackIterDataset(
      source, lengths=LENGTHS, num_examples=packing.WINDOW, seed=0
    )

  def run() -> dict[str, float]:
    iterator, rows, largest = ds.__iter__(), 0, 0
    for _ in iterator:
      rows += 1
      if rows % 100 == 0:
        largest = max(largest, len(json.dumps(state := iterator.get_state())))
    began = time.perf_counter()
    if largest:
      iterator.set_state(state)
    return {'rows': rows, 'state bytes': largest, 'restore s': time.perf_counter() - began}

  return run


def of_grain(
  kind: str, means: tuple[int, int], count: int, packer: str = 'FirstFit'
) -> measurement.Run:
  import grain

  source = grain.MapDataset.source(examples(kind, means, count)).to_iter_dataset(
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  make = getattr(grain.experimental, f'{packer}PackIterDataset', None)
  if make is None:
    raise measurement.NotHere(f'this Grain has no {packer}PackIterDataset')
  return _counted(lambda: make(source, length_struct=LENGTHS, num_packing_bins=128))


def of_seqio(kind: str, means: tuple[int, int], count: int) -> measurement.Run:
  import seqio
  import tensorflow as tf

  made = examples(kind, means, count)
  spec = {name: tf.TensorSpec([None], tf.int32) for name in LENGTHS}

  def rows() -> Iterable[object]:
    source = tf.data.Dataset.from_generator(lambda: iter(made), output_signature=spec)
    return seqio.utils.trim_and_pack_dataset(source, LENGTHS).as_numpy_iterator()

  return _counted(rows)


def offline(kind: str, means: tuple[int, int], count: int) -> measurement.Run:
  """First-fit decreasing: rows alone, no arrays."""
  pairs = sizes(kind, means, count)

  def run() -> dict[str, float]:
    free = np.full((len(pairs), 2), 1024)
    used = 0
    for i in np.argsort(-pairs.sum(axis=1), kind='stable'):
      row = int((free[: used + 1] >= pairs[i]).all(axis=1).argmax())
      free[row] -= pairs[i]
      used = max(used, row + 1)
    return {'rows': used}

  return run


def ways(settings: Mapping[str, object]) -> dict[str, measurement.Way]:
  return {
    'ours, best fit': (ours, settings),
    'ours, first fit': (ours, {**settings, 'packer': 'first'}),
    'first-fit decreasing, offline': (offline, settings),
    'Grain, first fit': (of_grain, settings),
    'Grain, best fit': (of_grain, {**settings, 'packer': 'BestFit'}),
    'SeqIO': (of_seqio, settings),
  }


def main() -> None:
  parser = measurement.parser(__doc__, repeats=3)
  parser.add_argument('--pairs', type=int, default=10_000)
  parser.add_argument('--kinds', nargs='+', choices=[*_DRAWS], default=['exponential'])
  parser.add_argument('--means', nargs='+', default=MEANS, help='tokens of inputs/targets')
  args = parser.parse_args()
  found = []
  for kind in args.kinds:
    for name in args.means:
      means = tuple(map(int, name.split('/')))
      work = measurement.Work(f'{kind} {name}', args.pairs, 'pairs')
      settings = {'kind': kind, 'means': means, 'count': args.pairs}
      found += measurement.measure(work, ways(settings), args.repeats)
      bound = int(np.ceil(sizes(kind, means, args.pairs).sum(axis=0).max() / 1024))
      print(f'{work.name}: no packing needs fewer than {bound} rows', flush=True)
  measurement.show(found)
  measurement.finish(args, 'packing', found)


if __name__ == '__main__':
  main()
