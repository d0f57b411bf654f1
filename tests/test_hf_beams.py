"""Answers are those of transformers' `generate`, token by token, for every way of decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from aya_train import decoding, hf_beams, partitioning
from aya_train.checkpoint import formats, reading
from aya_train.models import network
from aya_train.objectives import seq2seq
from tests.checkpoint.hf import transformers_folder

torch = pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')

LENGTH, WIDTH = 14, 9
PENALTIES = {'repetition_penalty': 1.7, 'no_repeat_ngram_size': 2, 'min_new_tokens': 6}


class Pair:
  """One tiny mT5, twice: transformers' own, and ours with its weights."""

  def __init__(self, folder, **settings):
    path = transformers_folder.write(folder, vocab_size=96, **settings)
    self.theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(path)).eval()
    source = formats.detect(path)
    config = formats.open_checkpoint(source).config
    vocabulary = seqio.PassThroughVocabulary(96, eos_id=1)
    self.ours = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
    self.params = reading.read_for(self.ours, partitioning.one_device(), source)
    rng = np.random.default_rng(0)
    self.inputs = rng.integers(2, 96, (8, WIDTH)).astype(np.int32)
    for row, length in enumerate(rng.integers(1, WIDTH, 8)):
      self.inputs[row, length:] = 0

  def generate(self, count, **options):
    ids = torch.tensor(self.inputs.astype(np.int64))
    options = {'max_new_tokens': LENGTH, 'do_sample': False, **options}
    out = self.theirs.generate(
      ids, attention_mask=(ids > 0).long(), num_return_sequences=count, **options
    )
    answers = [until_end(answer[1:]) for answer in out.tolist()]
    return [answers[i : i + count] for i in range(0, len(answers), count)]

  def decode(self, decode_fn):
    @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
    def run(params, inputs):
      return self.ours.predict_batch(
        params, {'encoder_input_tokens': inputs}, max_decode_length=LENGTH, decode_fn=decode_fn
      )

    tokens, _ = run(self.params, jnp.asarray(self.inputs))
    return [[until_end(answer) for answer in row] for row in np.asarray(tokens).tolist()]


def until_end(tokens):
  return tokens[: tokens.index(1) + 1] if 1 in tokens else tokens


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  return Pair(tmp_path_factory.mktemp('generate') / 'model', num_layers=2)


@pytest.mark.heavy  # fast: test_logits_processors.py has the penalties, test_decoding.py the search
@pytest.mark.parametrize('penalties', [{}, PENALTIES], ids=str)
def test_greedy(pair, penalties):
  greedy = functools.partial(decoding.temperature_sample, temperature=0.0, **penalties)
  expected = pair.generate(1, **penalties)
  assert pair.decode(greedy) == expected
  assert len({str(answer) for answer in expected}) > 1


SLOW = [
  {},
  {'length_penalty': 0.0, 'early_stopping': 'never'},
  {'length_penalty': 2.0, 'early_stopping': 'never'},
  {'length_penalty': -1.0, 'early_stopping': True},
  {'length_penalty': 1.0, 'early_stopping': True, 'num_beams': 2},
  {'repetition_penalty': 0.6},
  {'no_repeat_ngram_size': 1},
  {'no_repeat_ngram_size': 3, 'repetition_penalty': 1.1, 'num_beams': 5},
  {'min_new_tokens': 13, 'length_penalty': -0.5},
  {'num_beams': 1, 'repetition_penalty': 1.3},
]


@pytest.mark.parametrize(
  'options',
  [
    {**PENALTIES, 'length_penalty': 0.6, 'num_beams': 3},
    *[pytest.param(options, marks=pytest.mark.heavy) for options in SLOW],
  ],
  ids=str,
)
def test_beams(pair, options):
  options = {'num_beams': 4, **options}
  ours = {('num_decodes' if k == 'num_beams' else k): v for k, v in options.items()}
  found = pair.decode(functools.partial(hf_beams.hf_beam_search, **ours))
  assert found == pair.generate(options['num_beams'], **options)
