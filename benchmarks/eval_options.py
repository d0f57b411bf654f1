"""Seconds to score ranked options: a row an option, the encoder once a question, transformers.

    PYTHONPATH=. python benchmarks/eval_options.py --questions 32 --options 4 --repeats 5

All three score the same questions with the same random mT5 (emb_dim 256, 4 + 4 layers, 32,128 rows)
in one process on the CPU, in batches of like length, after one pass that compiles. Medians.
"""

import argparse
import logging
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

try:  # noqa: SIM105 - a call before the imports would not do
  import triton  # noqa: F401 - before TensorFlow, or it ends the process (cli/libraries.py)
except ImportError:
  pass

import flax.linen as nn
import jax
import numpy as np
import seqio

from aya_train import model_answers, partitioning
from aya_train.data import feature_converters
from aya_train.models import network, t5_config
from aya_train.objectives import seq2seq

BATCH = 8  # questions
LONGEST = {'inputs': 256, 'targets': 16}


def config() -> t5_config.T5Config:
  return t5_config.T5Config(
    vocab_size=32128,
    emb_dim=256,
    num_heads=4,
    head_dim=64,
    mlp_dim=512,
    num_encoder_layers=4,
    num_decoder_layers=4,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
    scan_layers=False,
  )


def questions(count: int, options: int) -> list[model_answers.Scored]:
  """Inputs of 64 to 256 tokens, options of 2 to 16, sorted as an evaluation sorts them."""
  rng = np.random.default_rng(0)

  def ids(low: int, high: int) -> np.ndarray:
    return rng.integers(3, 32000, rng.integers(low, high + 1)).astype(np.int32)

  made = [
    model_answers.Scored(ids(64, LONGEST['inputs']), [ids(2, 16) for _ in range(options)])
    for _ in range(count)
  ]
  return sorted(made, key=lambda question: question.size)


def shared(
  model: seq2seq.EncoderDecoderModel, params: object, asked: list[model_answers.Scored]
) -> Callable[[], list[list[float]]]:
  answerer = model_answers.ModelAnswers(model, partitioning.one_device(), BATCH, 0)
  answerer.params = params

  def run() -> list[list[float]]:
    found = []
    for i in range(0, len(asked), BATCH):
      found += answerer.score(asked[i : i + BATCH], limit=LONGEST['inputs'])
    return found

  return run


def row_per_option(
  model: seq2seq.EncoderDecoderModel, params: object, asked: list[model_answers.Scored]
) -> Callable[[], list[list[float]]]:
  step = jax.jit(model.score_batch)
  pairs = [{'inputs': q.inputs, 'targets': t} for q in asked for t in q.targets]
  size = BATCH * len(asked[0].targets)

  def run() -> list[list[float]]:
    found: list[float] = []
    for i in range(0, len(pairs), size):
      part = pairs[i : i + size]
      width = model_answers.input_width(
        max(len(pair['inputs']) for pair in part), LONGEST['inputs']
      )
      rows = feature_converters.padded(part, {'inputs': width, 'targets': 16}, size)
      batch = feature_converters.EncDecFeatureConverter().convert(rows, packed=False)
      found += np.asarray(step(params, batch))[: len(part)].tolist()
    values = iter(found)
    return [[next(values) for _ in q.targets] for q in asked]

  return run


def transformers_own(
  model: seq2seq.EncoderDecoderModel, params: object, asked: list[model_answers.Scored], folder: str
) -> Callable[[], list[list[float]]]:
  """A row for each option, as its users score them."""
  import torch
  from flax import traverse_util

  from aya_train.checkpoint.hf import hf_export, hf_torch
  from tests.checkpoint import small_model

  vocabulary = small_model.train_vocabulary(pathlib.Path(folder))
  flat = {k: np.asarray(v) for k, v in traverse_util.flatten_dict(params, sep='/').items()}
  hf_export.export(flat, model.config, vocabulary, f'{folder}/hf')
  theirs = hf_torch.open_mapped(f'{folder}/hf')
  pairs = [(q.inputs, t) for q in asked for t in q.targets]
  size = BATCH * len(asked[0].targets)

  def padded(rows: list[np.ndarray], value: int) -> 'torch.Tensor':
    width = max(map(len, rows))
    return torch.tensor(
      np.array([[*row.tolist(), *[value] * (width - len(row))] for row in rows]), dtype=torch.long
    )

  def run() -> list[list[float]]:
    found: list[float] = []
    for i in range(0, len(pairs), size):
      inputs = padded([source for source, _ in pairs[i : i + size]], 0)
      labels = padded([target for _, target in pairs[i : i + size]], -100)
      with torch.no_grad():
        logits = theirs(input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels).logits
      chosen = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
      found += (chosen * (labels >= 0)).sum(-1).tolist()
    values = iter(found)
    return [[next(values) for _ in q.targets] for q in asked]

  return run


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
  taken = []
  for _ in range(repeats):
    started = time.perf_counter()
    run()
    taken.append(time.perf_counter() - started)
  return taken


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--questions', type=int, default=32)
  parser.add_argument('--options', type=int, default=4)
  parser.add_argument('--repeats', type=int, default=5)
  args = parser.parse_args()
  logging.disable(logging.WARNING)
  vocabulary = seqio.PassThroughVocabulary(32128, eos_id=1)
  model = seq2seq.EncoderDecoderModel(network.Transformer(config()), vocabulary, vocabulary)
  params = nn.unbox(jax.jit(model.initial_variables)(jax.random.key(0)))
  asked = questions(args.questions, args.options)
  with tempfile.TemporaryDirectory() as folder:
    ways = {
      'a row an option': row_per_option(model, params, asked),
      'encoder once a question': shared(model, params, asked),
      'transformers, a row an option': transformers_own(model, params, asked, folder),
    }
    scores = {name: run() for name, run in ways.items()}  # compiles too
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):  # in turn, so that all see the same machine
      for name, run in ways.items():
        times[name] += seconds(run, 1)
  first = next(iter(scores.values()))
  base = statistics.median(times['a row an option'])
  for name, taken in times.items():
    off = max(np.max(np.abs(np.subtract(a, b))) for a, b in zip(first, scores[name], strict=True))
    median = statistics.median(taken)
    print(
      f'{name:30} {median:7.3f} s  {args.questions / median:7.1f} questions/s  '
      f'x{base / median:.2f}  largest difference of a score {off:.1e}'
    )


if __name__ == '__main__':
  main()
