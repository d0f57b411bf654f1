"""Rates and padding of the training pipeline against SeqIO's own, on synthetic examples.

  python benchmarks/data_pipeline.py --examples=20000 --rows=2000

A task of texts with a few hundred tokens (lognormal lengths) is read by `aya_train.data.batching`
from prepared files, and by `task.get_dataset` + `EncDecFeatureConverter(pack=True)` as t5x.train
would: once with tokenisation, once from tokens in memory. Both get as many CPU cores as there are;
the consumer is one Python thread.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
import time

import grain
import numpy as np
import seqio
import tensorflow as tf

from aya_train.data import batching, feature_converters, mixing, prepared

LENGTHS = {'inputs': 1024, 'targets': 1024}
VOCABULARY = seqio.ByteVocabulary(extra_ids=0)
FEATURES = {f: seqio.Feature(VOCABULARY, add_eos=True) for f in LENGTHS}


def add_tasks(num_examples: int) -> None:
  rng = np.random.default_rng(0)
  lengths = np.minimum(rng.lognormal(4.8, 0.7, (num_examples, 2)).astype(int) + 4, 1023)
  texts = [[rng.integers(97, 123, n, np.uint8).tobytes() for n in row] for row in lengths]

  columns = {f: list(column) for f, column in zip(LENGTHS, zip(*texts, strict=True), strict=True)}

  def dataset(split, shuffle_files):
    del split, shuffle_files
    return tf.data.Dataset.from_tensor_slices(columns)

  def tokens(split, shuffle_files):
    ds = dataset(split, shuffle_files)
    return seqio.preprocessors.tokenize(ds, FEATURES, copy_pretokenized=False).cache()

  tokenize = [seqio.preprocessors.tokenize]
  for name, fn, steps in (('bench', dataset, tokenize), ('bench_tokens', tokens, [])):
    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(fn, splits=['train']),
      preprocessors=[*steps, seqio.preprocessors.append_eos],
      output_features=FEATURES,
    )


def _rows(batch):
  """Model features by the names of the task's features."""
  rows = {'inputs': batch['encoder_input_tokens'], 'targets': batch['decoder_target_tokens']}
  segments = {
    f'{f}_segment_ids': batch[f'{side}_segment_ids']
    for f, side in (('inputs', 'encoder'), ('targets', 'decoder'))
    if f'{side}_segment_ids' in batch
  }
  return rows | segments


def measure(name: str, batches, rows: int, batch_size: int) -> dict[str, float]:
  batches = iter(batches)
  for _ in range(max(1, 256 // batch_size)):  # the first rows include opening, tracing and packing
    next(batches)
  begin = time.perf_counter()
  taken = list(itertools.islice(batches, rows // batch_size))
  seconds = time.perf_counter() - begin
  examples = sum(feature_converters.examples_per_batch(_rows(b), [*LENGTHS]) for b in taken)
  filled = [feature_converters.packing_efficiency(_rows(b), [*LENGTHS]) for b in taken]
  result = {
    'rows/s': len(taken) * batch_size / seconds,
    'examples/s': examples / seconds,
    'padding': 1 - float(np.mean(filled)),
  }
  print(f'{name:52s}', '  '.join(f'{k} {v:8.3g}' for k, v in result.items()), flush=True)
  return result


def seqio_batches(task_name: str, batch_size: int):
  task = seqio.TaskRegistry.get(task_name)
  ds = task.get_dataset(LENGTHS, 'train', shuffle=True, num_epochs=None)
  ds = seqio.EncDecFeatureConverter(pack=True)(ds, LENGTHS)
  return ds.batch(batch_size, drop_remainder=True).prefetch(2).as_numpy_iterator()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--examples', type=int, default=20_000)
  parser.add_argument('--rows', type=int, default=2_000)
  parser.add_argument('--batch_size', type=int, default=16)
  args = parser.parse_args()
  add_tasks(args.examples)
  theirs = {
    name: measure(
      f'SeqIO, {name}', seqio_batches(name, args.batch_size), args.rows, args.batch_size
    )
    for name in ('bench', 'bench_tokens')
  }
  with tempfile.TemporaryDirectory() as directory:
    begin = time.perf_counter()
    prepared.prepare_task('bench', 'train', directory)
    print(f'preparing: {args.examples / (time.perf_counter() - begin):.0f} examples/s')
    base = batching.DatasetConfig(
      'bench', LENGTHS, 'train', args.batch_size, seed=0, prepared_dir=directory
    )
    ours = measure('prepared, default', batching.train_iterator(base), args.rows, args.batch_size)
    for change in (
      {'prefetch_batches': 0},
      {'num_read_threads': 4},
      {'num_packing_bins': 16},
      {'num_packing_bins': 512},
    ):
      iterator = batching.train_iterator(dataclasses.replace(base, **change))
      measure(f'prepared, {change}', iterator, args.rows, args.batch_size)
    iterator = batching.train_iterator(base)
    for _ in range(20):
      next(iterator)
    state = iterator.get_state()
    begin = time.perf_counter()
    iterator.set_state(state)
    next(iterator)
    print(f'state: {len(json.dumps(state))} bytes; restoring: {time.perf_counter() - begin:.3f} s')
  for name, their in theirs.items():
    ratio = ours['examples/s'] / their['examples/s']
    rows = (1 - ours['padding']) / (1 - their['padding'])
    print(f'against SeqIO, {name}: {ratio:.2f} x the examples/s, {1 - 1 / rows:.1%} fewer rows')

  rates = np.random.default_rng(1).lognormal(0, 1.5, 300)
  grains = grain.MapDataset.mix([grain.MapDataset.range(10).repeat(None)] * 300, list(rates))
  for name, selection in (
    ('grain', grains._selection_map),
    ('ours', mixing.ProportionalSelection(rates)),
  ):
    begin = time.perf_counter()
    for k in range(20_000):
      selection[k]
    print(f'mixing 300 tasks, {name}: {(time.perf_counter() - begin) / 20_000 * 1e6:.1f} us a draw')


if __name__ == '__main__':
  main()
