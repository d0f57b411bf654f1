"""Tokens a second of decoding: ours, transformers and CTranslate2 on the same weights.

    python -m benchmarks.decode --shape small --batch 8 --inputs 64 --tokens 64
    python -m benchmarks.decode --shape small --batch 8 --inputs 64 --tokens 64 --beams 4
    python -m benchmarks.decode --shape small --batch 32 --inputs 64 --tokens 64 --ends 2.5

A random mT5 is saved as a Hugging Face folder, which all read. Nothing is scored but what each
scores anyway. The end of sequence has zeros in the output head, and beams a least length: no
answer ends early. With `--ends` the end has larger weights, so that answers end at different
places; then ours is measured once more with the ended rows kept in its arrays. `same` is the share
of tokens that are those of the first way, of the best beam, and `length` the mean of an answer.
Ours in bfloat16 is what PARAMETER_DTYPE and ACTIVATION_DTYPE set.
"""

import dataclasses
import functools
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks import measurement, train_step


@dataclasses.dataclass(frozen=True)
class Case:
  """What every way decodes.

  Attributes:
    folder: of the model.
    shape: its name.
    batch: rows.
    inputs, tokens: tokens of each, and of its answer at most.
    beams: of each row.
    least: tokens of an answer.
  """

  folder: str
  shape: str
  batch: int
  inputs: int
  tokens: int
  beams: int
  least: int

  @property
  def ids(self) -> np.ndarray:
    top = min(train_step.SHAPES[self.shape]['vocab_size'], 32000)
    return np.random.default_rng(0).integers(3, top, (self.batch, self.inputs)).astype(np.int32)


def save(shape: str, folder: pathlib.Path, ends: float) -> None:
  """A random model and a vocabulary of as many pieces."""
  import torch
  import transformers as hf

  torch.manual_seed(0)
  sizes = train_step.SHAPES[shape]
  config = hf.MT5Config(
    **{train_step.HF_NAMES[k]: v for k, v in sizes.items()},
    tie_word_embeddings=False,
    decoder_start_token_id=0,
  )
  model = hf.MT5ForConditionalGeneration(config)
  # transformers 5 ties the head of every mT5 that it makes, and no mT5 has it so.
  model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
  model.config.tie_word_embeddings = False
  with torch.no_grad():
    for name, weights in model.named_parameters():
      if weights.ndim == 2:
        scale = sizes['emb_dim'] ** -0.5 if 'embed' not in name and 'shared' not in name else 1.0
        # As T5 begins: its scores are not divided by anything.
        scale *= sizes['head_dim'] ** -0.5 if name.endswith('.q.weight') else 1.0
        weights.normal_(0.0, scale)
    model.lm_head.weight[1] *= ends
  model.save_pretrained(folder)


def ours(case: Case, dtype: str, halvings: int | None = None):
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  import jax

  from aya_train import task_registration

  task_registration.put_off()  # as `infer` does
  from aya_train import hf_beams, partitioning, row_compaction
  from aya_train.checkpoint import formats, reading
  from aya_train.models import network, t5_config
  from aya_train.objectives import seq2seq

  if halvings is not None:
    row_compaction.MAX_HALVINGS = halvings
  config = t5_config.T5Config(
    **train_step.SHAPES[case.shape],
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
    dtype=dtype,
    scan_layers=False,
  )
  vocabulary = train_step.Ids(config.vocab_size)
  model = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
  partitioner = partitioning.one_device()
  params = reading.read_for(model, partitioner, formats.detect(case.folder), dtype)
  search = functools.partial(  # one beam is greedy
    hf_beams.hf_beam_search, num_decodes=case.beams, min_new_tokens=case.least
  )
  step = jax.jit(
    lambda p, b: model.predict_batch(p, b, max_decode_length=case.tokens, decode_fn=search)
  )
  given = {'encoder_input_tokens': case.ids}

  def run() -> dict[str, Any]:
    return _figures(case, np.asarray(step(params, given)[0])[:, 0])

  return run


def transformers(case: Case):
  import torch
  import transformers as hf

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = hf.MT5ForConditionalGeneration.from_pretrained(case.folder).eval()
  given = torch.from_numpy(case.ids).long()

  def run() -> dict[str, Any]:
    with torch.inference_mode():
      found = model.generate(
        given,
        max_new_tokens=case.tokens,
        min_new_tokens=case.least,
        do_sample=False,
        num_beams=case.beams,
      )
    return _figures(case, found.numpy()[:, 1:])

  return run


def ctranslate2(case: Case, compute_type: str):
  import ctranslate2 as ct2
  from ctranslate2 import converters

  pieces = [f'<{i}>' for i in range(train_step.SHAPES[case.shape]['vocab_size'])]

  class Loaded(converters.TransformersConverter):
    def load_tokenizer(self, *args: Any, **kwargs: Any) -> Any:
      return _Tokenizer(pieces)

  out = pathlib.Path(case.folder, f'ct2_{compute_type}')
  if not out.exists():
    Loaded(case.folder).convert(
      str(out), quantization=None if compute_type == 'float32' else 'int8'
    )
  model = ct2.Translator(
    str(out),
    compute_type=compute_type,
    inter_threads=1,
    intra_threads=len(os.sched_getaffinity(0)),
  )
  given = [[pieces[i] for i in row] for row in case.ids]

  def run() -> dict[str, Any]:
    found = model.translate_batch(
      given,
      beam_size=case.beams,
      min_decoding_length=case.least,
      max_decoding_length=case.tokens,
      max_batch_size=case.batch * case.beams,
    )
    rows = [[int(piece[1:-1]) for piece in one.hypotheses[0]] for one in found]
    return _figures(case, np.array([row + [0] * (case.tokens - len(row)) for row in rows]))

  return run


class _Tokenizer:
  """What CTranslate2's converter asks of a tokenizer."""

  unk_token, bos_token, eos_token, pad_token = '<2>', '<0>', '<1>', '<0>'

  def __init__(self, pieces: list[str]):
    self._pieces = pieces

  def get_vocab(self) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(self._pieces)}

  def convert_ids_to_tokens(self, i: int) -> str:
    return self._pieces[i]


def _figures(case: Case, rows: np.ndarray) -> dict[str, Any]:
  """Compares with what the first way left."""
  kept = pathlib.Path(case.folder, 'answers.npy')
  if not kept.exists():
    np.save(kept, rows)
  first = np.load(kept)
  padded = np.zeros_like(first)
  padded[:, : rows.shape[1]] = rows[:, : case.tokens]
  return {'same': float((padded == first).mean()), 'length': float((padded != 0).sum(1).mean())}


def main() -> None:
  parser = measurement.parser(__doc__)
  parser.add_argument('--shape', choices=sorted(train_step.SHAPES), default='tiny', help='of mT5')
  parser.add_argument('--batch', type=int, default=8, help='rows')
  parser.add_argument('--inputs', type=int, default=64, help='tokens of each')
  parser.add_argument('--tokens', type=int, default=64, help='of each answer')
  parser.add_argument('--beams', type=int, default=1, help='of each row; 1 is greedy decoding')
  parser.add_argument(
    '--ends', type=float, default=0.0, help='times the weights of the end of sequence, such as 2.5'
  )
  parser.add_argument('--ways', help='which are measured, by comma; all by default')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    save(args.shape, pathlib.Path(folder), args.ends)
    case = Case(
      folder,
      least=0 if args.ends or args.beams == 1 else args.tokens - 1,
      **{k: getattr(args, k) for k in ('shape', 'batch', 'inputs', 'tokens', 'beams')},
    )
    of = {'case': case}
    ways: dict[str, measurement.Way] = {
      'ours float32': (ours, {**of, 'dtype': 'float32'}),
      'ours bfloat16': (ours, {**of, 'dtype': 'bfloat16'}),
      'transformers': (transformers, of),
      'ctranslate2 float32': (ctranslate2, {**of, 'compute_type': 'float32'}),
      'ctranslate2 int8': (ctranslate2, {**of, 'compute_type': 'int8'}),
    }
    if args.ends:
      ways['ours, no row taken out'] = (ours, {**of, 'dtype': 'float32', 'halvings': 0})
    name = (
      f'{args.shape}, {args.batch} rows, {args.inputs} in, {args.tokens} new, beams {args.beams}'
      + (f', ends {args.ends}' if args.ends else '')
    )
    # What is not generated after an end is no token.
    count = (args.batch, 'rows') if args.ends else (args.batch * args.tokens, 'tokens')
    work = measurement.Work(name, *count)
    chosen = {k: ways[k] for k in (args.ways.split(',') if args.ways else ways)}
    found = measurement.measure(work, chosen, args.repeats)
  measurement.show(found)
  measurement.finish(args, 'decode', found)


if __name__ == '__main__':
  main()
