"""`infer` as its users see it: whose answers, in which file, and what it refuses."""

import dataclasses
import functools
import io
import json
import logging

import jax
import pytest
import seqio
from etils import epath

from aya_train import (
  answer_batches,
  answer_file,
  decoding,
  hf_beams,
  inference,
  partitioning,
  stopping,
)
from aya_train.checkpoint import formats, reading
from aya_train.data import feature_converters
from tests import seqio_tasks, tiny

LENGTHS = {'inputs': 24, 'targets': 6}
PROMPTS = tuple('abcdefghijklmnop'[:n] * 2 for n in (3, 1, 16, 2, 9, 4, 1, 12, 5))
SAMPLING = functools.partial(decoding.temperature_sample, temperature=0.9, topp=0.8)


@pytest.fixture(scope='module')
def tiny_model():
  vocabulary = seqio_tasks.VOCABULARY
  sizes = {'num_encoder_layers': 1, 'num_decoder_layers': 1}  # quick to compile
  model = tiny.model(vocab_size=vocabulary.vocab_size, **sizes)
  model = dataclasses.replace(model, input_vocabulary=vocabulary, output_vocabulary=vocabulary)
  return model, tiny.params(model)


@pytest.fixture
def infer(tiny_model, tmp_path, monkeypatch):
  """Calls `infer` on a checkpoint of which the weights are in memory; gives the records."""
  model, params = tiny_model
  (tmp_path / 'weights').write_text('1')
  monkeypatch.setattr(
    formats,
    'detect',
    lambda path, base=None: formats.Detected(epath.Path(tmp_path / 'weights'), formats.Format.T5X),
  )
  monkeypatch.setattr(reading, 'check', lambda *args: None)
  monkeypatch.setattr(reading, 'read_for', lambda *args: params)

  def run(name='a.jsonl', decode_fn=None, decoded=False, **options):
    if not decoded:
      monkeypatch.setattr(answer_batches, 'answers', reversed_inputs)
    if not {'prompts', 'prompts_file', 'mixture_or_task_name'} & {*options}:
      options['prompts'] = PROMPTS
    used = dataclasses.replace(model, decode_fn=decode_fn) if decode_fn else model
    inference.infer(
      model=used,
      checkpoint_path='weights',
      output_file=str(tmp_path / name),
      task_feature_lengths=LENGTHS,
      **{'partitioner': partitioning.one_device(), 'batch_size': 4, **options},
    )
    return [] if answer_file.is_stream(name) else read(tmp_path / name)

  return run


def reversed_inputs(model, params, tokens, batches, *, num_samples, **unused):
  """In place of a model's answers, which take seconds to compile."""
  for batch in batches:
    yield batch, [[[*tokens[i][-2::-1], 1]] * num_samples for i in batch]


def read(path):
  return [json.loads(line) for line in path.read_bytes().split(b'\n') if line]


class KilledError(BaseException):
  pass


def killed_after(monkeypatch, batches):
  """Lets so many batches be written, and ends the process in the next."""
  write = answer_file.AnswerFile.write
  calls = []

  def until(self, records):
    calls.append(1)
    if len(calls) > batches:
      raise KilledError
    write(self, records)

  monkeypatch.setattr(answer_file.AnswerFile, 'write', until)
  return lambda: monkeypatch.setattr(answer_file.AnswerFile, 'write', write)


def test_samples_are_the_same_for_every_batch_and_stop(infer, monkeypatch, tmp_path):
  together = infer('a.jsonl', SAMPLING, True, num_samples=2, batch_size=32)
  assert [(r['index'], r['sample']) for r in together] == [(i, k) for i in range(9) for k in (0, 1)]
  assert [r['inputs'] for r in together[::2]] == list(PROMPTS)
  assert len({r['prediction'] for r in together}) > 9

  revive = killed_after(monkeypatch, 1)
  with pytest.raises(KilledError):
    infer('d.jsonl', SAMPLING, True, num_samples=2, batch_size=7)
  revive()
  assert len(read(tmp_path / 'd.jsonl')) == 14
  assert infer('d.jsonl', SAMPLING, True, num_samples=2, batch_size=32) == together


@pytest.mark.heavy
def test_samples_are_the_same_for_every_device_and_number(infer):
  together = infer('a.jsonl', SAMPLING, True, num_samples=2, batch_size=7)
  mesh = partitioning.Partitioner(
    {'data': 8, 'model': 1}, partitioning.standard_logical_axis_rules(), jax.devices()
  )
  assert infer('b.jsonl', SAMPLING, True, num_samples=2, batch_size=8, partitioner=mesh) == together
  one = infer('c.jsonl', SAMPLING, True, num_samples=1, batch_size=1)
  assert [r['prediction'] for r in one] == [r['prediction'] for r in together[::2]]


def test_nothing_is_decoded_twice(infer, monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  infer()
  monkeypatch.setattr(reading, 'read_for', None)
  assert len(infer(batch_size=2)) == 9
  assert 'all 9 answers are there already' in caplog.text


def test_answers_of_another_run_are_kept(infer, tmp_path):
  before = infer()
  with pytest.raises(answer_file.OtherAnswersError, match=r'temperature was 0\.0, now 0\.9'):
    infer(decode_fn=SAMPLING)
  with pytest.raises(answer_file.OtherAnswersError, match='prompts was'):
    infer(prompts=PROMPTS[:-1])
  (tmp_path / 'weights').write_text('2')
  with pytest.raises(answer_file.OtherAnswersError, match='checkpoint was'):
    infer()
  assert read(tmp_path / 'a.jsonl') == before
  assert len(infer(prompts=PROMPTS[:2], overwrite=True)) == 2


def test_a_signal_leaves_what_is_answered(infer, monkeypatch, tmp_path):
  check = stopping.Stop.check

  def stop(self):
    self._signalled = True
    check(self)

  monkeypatch.setattr(stopping.Stop, 'check', stop)
  with pytest.raises(stopping.StoppedError):
    infer()
  monkeypatch.setattr(stopping.Stop, 'check', check)
  found = read(tmp_path / 'a.jsonl')
  assert len(found) == 4
  assert sorted(infer(), key=lambda r: r['index'])[found[0]['index']] == found[0]


def test_columns_of_json_lines_go_with_their_answers(infer, tmp_path):
  rows = [{'id': 'x1', 'language': 'yor', 'prompt': 'Kí ni?', 'prediction': 'old'}]
  rows += [{'id': 7, 'prompt': 'لماذا؟', 'tags': ['a', None]}]
  path = tmp_path / 'prompts.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  first, second = infer(prompts_file=str(path))
  assert {**first, 'prediction': 0} == {
    'index': 0,
    'id': 'x1',
    'language': 'yor',
    'inputs': 'Kí ni?',
    'prediction': 0,
  }
  assert (second['id'], second['tags'], second['inputs']) == (7, ['a', None], 'لماذا؟')
  assert first['prediction'] != 'old'


def test_records_of_a_task_are_those_of_eval(infer):
  pairs = [('x' * n, str(n)) for n in (9, 1, 14)]
  seqio_tasks.add_task('tests.infer', {'test': pairs})
  try:
    found = infer(mixture_or_task_name='tests.infer')
  finally:
    seqio.TaskRegistry.remove('tests.infer')
  assert [(r['task'], r['index'], r['inputs'], r['targets']) for r in found] == [
    ('tests.infer', i, text, [target]) for i, (text, target) in enumerate(pairs)
  ]
  as_prompts = infer('b.jsonl', prompts=[text for text, _ in pairs])
  assert [r['prediction'] for r in found] == [r['prediction'] for r in as_prompts]


def test_standard_input_to_standard_output(infer, monkeypatch, capsysbinary):
  text = '{"inputs": "abc", "id": 1}\n\n{"inputs": "defg", "id": 2}\n'
  monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(text.encode())))
  infer('/dev/stdout', prompts_file='-')
  lines = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
  assert [(r['id'], r['inputs']) for r in lines] == [(1, 'abc'), (2, 'defg')]


def test_long_prompts_are_cut_and_counted(infer, caplog):
  infer(prompts=('a' * 24, 'b' * 23, 'c'))
  assert '1 of 3 inputs are longer than 24 tokens and cut there, the first at index 0' in (
    caplog.text
  )


@pytest.mark.parametrize(
  ('decode_fn', 'options', 'message'),
  [
    (None, {'num_samples': 2}, 'NUM_SAMPLES = 2, but greedy decoding has one answer'),
    (None, {'num_samples': 0}, 'at least 1, got 0'),
    (functools.partial(hf_beams.hf_beam_search, num_decodes=2), {'num_samples': 3}, '2 beams'),
    (functools.partial(SAMPLING, min_new_tokens=6), {}, 'min_new_tokens .* less than the 6'),
    (None, {'prompts': ('a', ' ')}, 'PROMPTS: text 2 is empty'),
    (None, {'prompts': ('a',), 'prompts_file': 'b'}, 'exactly one of'),
    (None, {'decode_as_checkpoint': True}, 'says nothing of decoding'),
    (None, {'parameter_dtype': 'float16'}, "PARAMETER_DTYPE must be 'float32' or 'bfloat16'"),
  ],
)
def test_what_cannot_be_is_refused_before_weights_are_read(
  infer, monkeypatch, decode_fn, options, message
):
  monkeypatch.setattr(reading, 'read_for', None)
  with pytest.raises(ValueError, match=message):
    infer(decode_fn=decode_fn, **options)


@pytest.mark.heavy
def test_a_beam_gives_its_best_answers(infer):
  beams = functools.partial(hf_beams.hf_beam_search, num_decodes=3)
  found = infer(decode_fn=beams, decoded=True, num_samples=2, prompts=PROMPTS[:2])
  assert [(r['index'], r['sample']) for r in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize('in_order', [False, True])
def test_each_input_is_in_one_batch(in_order):
  tokens = [[3] * n for n in (5, 1, 9, 2, 7, 7, 3)]
  todo = [0, 2, 3, 4, 6]
  batches = answer_batches.plan(tokens, todo, 2, in_order=in_order)
  flat = [i for batch in batches for i in batch]
  assert flat == (todo if in_order else [2, 4, 0, 6, 3])
  assert [len(batch) for batch in batches] == [2, 2, 1]


@pytest.mark.parametrize('number', [0, -1])
def test_no_number_of_examples_stands_for_all(infer, number):
  options = {'prompts_file': None, 'prompts': (), 'mixture_or_task_name': 'cldr'}
  with pytest.raises(ValueError, match='NUM_EXAMPLES must be None'):
    infer(num_examples=number, **options)


def test_answers_need_a_length_of_both_sides():
  with pytest.raises(ValueError, match=r"no length of \['targets'\]"):
    feature_converters.check_lengths({'inputs': 8}, ('inputs', 'targets'))
