"""`infer` on a Hugging Face folder answers as transformers does."""

import json

import pytest
import seqio

from aya_train import inference, partitioning, preflight
from aya_train.checkpoint import answering, convert, formats, reading
from aya_train.models import network
from aya_train.objectives import objective, seq2seq
from tests.checkpoint.hf import transformers_folder

torch = pytest.importorskip('torch', reason='needs the extra `hf`')
transformers = pytest.importorskip('transformers', reason='needs the extra `hf`')

PROMPTS = ('Mo <sep> na waziri<|user|> maji', 'Mwanaume alifungua', '<extra_id_0> na')
LENGTH = 8


@pytest.fixture(scope='module')
def plain_vocabulary(vocabulary_file):
  return vocabulary_file.parent / 'plain.model'


@pytest.fixture(scope='module')
def source(tmp_path_factory, plain_vocabulary):
  """A folder whose answers begin with 5, end at 7, and whose tokenizer adds tokens."""
  folder = transformers_folder.write(tmp_path_factory.mktemp('answering') / 'source')
  transformers_folder.with_tokens(folder, plain_vocabulary, '<sep>', '<|user|>', 'waziri')
  ids = {'decoder_start_token_id': 5, 'eos_token_id': 7}
  transformers_folder.change(folder, **ids)
  return transformers_folder.change(folder, 'generation_config.json', **ids)


def model_of(path, vocabulary_file):
  config = formats.open_checkpoint(formats.detect(path)).config
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_file), extra_ids=0)
  return seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)


def predictions(path, vocabulary_file, out):
  inference.infer(
    model=model_of(path, vocabulary_file),
    checkpoint_path=str(path),
    partitioner=partitioning.one_device(),
    task_feature_lengths={'inputs': 32, 'targets': LENGTH},
    output_file=str(out),
    batch_size=len(PROMPTS),
    prompts=PROMPTS,
  )
  return [json.loads(line)['prediction'] for line in out.read_text().splitlines()]


def test_infer_answers_as_transformers_does(source, plain_vocabulary, tmp_path):
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(source))
  model = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(source)).eval()
  expected = []
  for prompt in PROMPTS:
    ids = torch.tensor([tokenizer(prompt)['input_ids']])
    answer = model.generate(ids, max_new_tokens=LENGTH)[0].tolist()
    assert answer[0] == 5
    kept = answer[1:-1] if answer[-1] == 7 else answer[1:]
    expected.append(tokenizer.decode([i for i in kept if i not in (0, 1)]))
  assert len(set(expected)) > 1
  assert predictions(source, plain_vocabulary, tmp_path / 'a.jsonl') == expected
  native = convert.convert(source, tmp_path / 'native', to='native', scan_layers=False)
  assert predictions(native, plain_vocabulary, tmp_path / 'b.jsonl') == expected


def test_several_ends_are_refused(source, tmp_path, plain_vocabulary):
  folder = convert.convert(source, tmp_path / 'other', dtype='bfloat16')
  transformers_folder.change(folder, 'generation_config.json', eos_token_id=[1, 7])
  with pytest.raises(ValueError, match=r'eos_token_id \[1, 7\]'):
    answering.adapted(model_of(folder, plain_vocabulary), formats.detect(folder))


def test_training_refuses_to_start_from_another_start_token(source, plain_vocabulary):
  model = model_of(source, plain_vocabulary)
  abstract, _ = objective.parameter_axes(model)
  with pytest.raises(ValueError, match=r'decoder_start_token_id 5 .* which training cannot say'):
    preflight.check_start(str(source), model, abstract)


@pytest.mark.parametrize('through', ['hf', 'native', 't5x'])
def test_a_network_of_the_same_shapes_and_another_function_is_refused(
  tmp_path, plain_vocabulary, through
):
  path = transformers_folder.write(tmp_path / 'source')
  wanted = model_of(path, plain_vocabulary)
  silu = transformers_folder.write(tmp_path / 'silu', feed_forward_proj='gated-silu')
  if through != 'hf':
    silu = convert.convert(silu, tmp_path / 'checkpoint_0', to=through, scan_layers=False)
  abstract, _ = objective.parameter_axes(wanted)
  with pytest.raises(ValueError, match=r"mlp_activations \['silu', 'linear'\], and the model"):
    reading.check(formats.detect(silu), abstract, wanted)
