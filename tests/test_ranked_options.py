"""Ranked options by both protocols, from an exported folder, against transformers and others."""

import importlib.util
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import seqio

from aya_train import partitioning
from aya_train.checkpoint.hf import hf_export, hf_torch
from aya_train.evaluation import evaluation, infer_eval
from aya_train.models import network
from aya_train.objectives import seq2seq
from aya_train.tasks import eval_tasks
from tests import seqio_tasks
from tests.checkpoint import small_model

LENGTHS = {'inputs': 48, 'targets': 24}
QUESTIONS = [
  ('The man broke his toe. Effect?', ['He got a hole', 'He dropped a hammer'], 1),
  ('Ko sí ìdádúró', ['coffee', 'cups of tea', '12 cups'], 0),
  ('한국어를 공부하는', ['학생입니다.', '병'], 0),
  ('Возможно ли вылечить эту болезнь?', ['Yes', 'No', 'Maybe', 'Yes'], 2),
  ('x ' * 60 + 'He brought me', ['coffee', 'tea'], 0),
]
ENDS = {'t0': (False, True), 'harness': (True, False)}


@pytest.fixture(scope='module')
def exported(vocabulary_file, tmp_path_factory):
  """A folder of Hugging Face, the model of it, and its vocabulary."""
  config = small_model.config(scan_layers=False)
  folder = tmp_path_factory.mktemp('exported') / 'hf'
  hf_export.export(small_model.random_params(config), config, vocabulary_file, folder)
  vocabulary = seqio.SentencePieceVocabulary(str(vocabulary_file))
  model = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
  names = {}
  for protocol, ends in ENDS.items():
    names[protocol] = f'tests.ranked.{protocol}'
    seqio_tasks.ranked(names[protocol], QUESTIONS, vocabulary, ends)
  yield folder, model, vocabulary
  for name in names.values():
    seqio.TaskRegistry.remove(name)


def evaluate(checkpoint, model, output_dir, **changes):
  settings = {'batch_size': 3, 'split': 'test', **changes}
  names = settings.pop('names', tuple(f'tests.ranked.{protocol}' for protocol in ENDS))
  rules = partitioning.standard_logical_axis_rules()
  return evaluation.evaluate(
    model=model,
    checkpoint_path=str(checkpoint),
    partitioner=partitioning.Partitioner({'data': 1, 'model': 1}, rules, jax.devices()[:1]),
    output_dir=str(output_dir),
    infer_eval_cfg=infer_eval.InferEvalConfig(names, LENGTHS, **settings),
  )


def predictions(output_dir, protocol):
  path = output_dir / eval_tasks.PREDICTIONS / f'tests.ranked.{protocol}.jsonl'
  lines = map(json.loads, path.read_text().splitlines())
  return [eval_tasks.Prediction.from_dict(line) for line in lines]


@pytest.fixture(scope='module')
def evaluated(exported, tmp_path_factory):
  folder, model, _ = exported
  output_dir = tmp_path_factory.mktemp('evaluated')
  return output_dir, evaluate(folder, model, output_dir)


def by_transformers(folder, vocabulary, protocol):
  """Sums of log-probabilities of every option, computed one by one."""
  torch = pytest.importorskip('torch', reason='needs the extra `hf`')
  model = hf_torch.open_mapped(folder)
  found = []
  for text, options, _ in QUESTIONS:
    inputs = [*vocabulary.encode(text), *([1] if ENDS[protocol][0] else [])]
    inputs = inputs[-LENGTHS['inputs'] :]
    scores = []
    for option in options:
      labels = [*vocabulary.encode(option), *([1] if ENDS[protocol][1] else [])]
      with torch.no_grad():
        logits = model(input_ids=torch.tensor([inputs]), labels=torch.tensor([labels])).logits
      chosen = torch.log_softmax(logits[0].double(), -1).gather(-1, torch.tensor(labels)[:, None])
      scores.append(float(chosen.sum()))
    found.append(scores)
  return found


@pytest.mark.parametrize('protocol', ENDS)
def test_scores_are_those_of_transformers(exported, evaluated, protocol):
  folder, _, vocabulary = exported
  expected = by_transformers(folder, vocabulary, protocol)
  found = predictions(evaluated[0], protocol)
  assert [p.index for p in found] == list(range(len(QUESTIONS)))
  for prediction, scores, (_, options, right) in zip(found, expected, QUESTIONS, strict=True):
    np.testing.assert_allclose(prediction.option_scores, scores, rtol=1e-4, atol=1e-4)
    assert prediction.options == list(options)
    assert prediction.prediction == options[int(np.argmax(scores))]
    assert prediction.label == right and prediction.targets == [options[right]]
    assert prediction.fields == {'id': f'q{prediction.index}'}
  hits = [p.prediction == p.targets[0] for p in found]
  figures = evaluated[1][f'infer_eval/tests.ranked.{protocol}']
  assert figures['accuracy'] == pytest.approx(100 * np.mean(hits))


def test_results_say_what_was_cut_and_what_is_equal(evaluated):
  output_dir, _ = evaluated
  content = json.loads((output_dir / eval_tasks.RESULTS).read_text())
  results = {n: eval_tasks.Result.from_dict(v) for n, v in content['tasks'].items()}
  assert [r.about.protocol for r in results.values()] == [eval_tasks.T0, eval_tasks.HARNESS]
  for result in results.values():
    assert result.num_examples == len(QUESTIONS) and result.about.split == 'test'
    assert f'2 of 13 options: inputs over {LENGTHS["inputs"]} tokens lost their beginning' in (
      result.notes
    )
  same = [p.option_scores for p in predictions(output_dir, 't0')][3]
  assert same[0] == same[3]  # bit for bit


@pytest.fixture
def copied(evaluated, tmp_path):
  return shutil.copytree(evaluated[0], tmp_path / 'copied')


def test_finished_tasks_are_kept_and_half_done_ones_go_on(exported, copied, caplog, monkeypatch):
  folder, model, _ = exported
  before = (copied / eval_tasks.RESULTS).read_bytes()
  asked = []
  score = seq2seq.EncoderDecoderModel.score_options

  def counted(self, params, batch, **options):
    asked.append(1)
    return score(self, params, batch, **options)

  monkeypatch.setattr(seq2seq.EncoderDecoderModel, 'score_options', counted)
  caplog.set_level('INFO')
  again = evaluate(folder, model, copied, batch_size=5)
  assert not asked and (copied / eval_tasks.RESULTS).read_bytes() != b''
  assert json.loads(before)['tasks'] == json.loads((copied / 'results.json').read_text())['tasks']
  assert again['infer_eval/tests.ranked.t0']['accuracy'] >= 0
  assert 'tests.ranked.t0: done before, and kept' in caplog.text
  # A killed process leaves a part of the lines, and half of one.
  path = copied / eval_tasks.PREDICTIONS / 'tests.ranked.harness.jsonl'
  whole = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(whole[:2]) + whole[2][:20])
  evaluate(folder, model, copied)
  assert asked
  for mine, theirs in zip(path.read_text().splitlines(), whole, strict=True):
    mine, theirs = json.loads(mine), json.loads(theirs)
    np.testing.assert_allclose(mine['option_scores'], theirs['option_scores'], rtol=1e-5)
  # Figures without answers are computed from the answers.
  asked.clear()
  (copied / eval_tasks.RESULTS).unlink()
  evaluate(folder, model, copied)
  assert not asked and (copied / eval_tasks.RESULTS).exists()


def test_another_checkpoint_or_other_settings_are_no_continuation(
  exported, copied, tmp_path, caplog
):
  folder, model, _ = exported
  other = shutil.copytree(folder, tmp_path / 'hf')
  names = ('tests.ranked.t0',)
  caplog.set_level('INFO')
  evaluate(folder, model, copied, names=names, num_examples=2)
  assert 'begun anew, since examples was' in caplog.text
  assert len(predictions(copied, 't0')) == 2
  (other / 'more.json').write_text('{}')
  evaluate(other, model, copied, names=names)
  assert 'holds the evaluation of another checkpoint' in caplog.text
  assert (copied / 'earlier' / 'step_0' / eval_tasks.RESULTS).exists()
  assert len(predictions(copied, 't0')) == len(QUESTIONS)


@pytest.mark.heavy
def test_a_ct2_folder_gives_the_same_scores(exported, evaluated, tmp_path):
  pytest.importorskip('ctranslate2', reason='needs the extra `quantised`')
  from aya_train.export import ct2_model

  folder, model, _ = exported
  ct2 = ct2_model.to_ctranslate2(folder, tmp_path / 'ct2', quantisation='float32')
  found = evaluate(ct2, model, tmp_path / 'out')
  assert {*found} == {*evaluated[1]}
  for protocol in ENDS:
    for mine, theirs in zip(
      predictions(tmp_path / 'out', protocol), predictions(evaluated[0], protocol), strict=True
    ):
      np.testing.assert_allclose(mine.option_scores, theirs.option_scores, rtol=1e-4, atol=1e-4)


HARNESS_PROGRAM = """
import json, sys
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
folder, pairs = sys.argv[1], json.loads(sys.argv[2])
# transformers 5 says of every mT5 that its head is tied, and HFLM then ties it: another network.
network = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype='float32')
network.config.tie_word_embeddings = False
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = HFLM(
  pretrained=network, tokenizer=tokenizer, backend='seq2seq', device='cpu', batch_size=4
)
asked = [Instance('loglikelihood', {}, tuple(pair), i) for i, pair in enumerate(pairs)]
print('FOUND' + json.dumps([score for score, _ in model.loglikelihood(asked)]))
"""


@pytest.mark.heavy
def test_scores_of_the_harness_protocol_are_lm_evaluation_harness_own(exported, evaluated):
  python = harness_python()
  if python is None:
    pytest.skip('lm_eval is not installed: pip install lm_eval, or AYA_TRAIN_LM_EVAL=PYTHON')
  folder, _, _ = exported
  asked = list(range(len(QUESTIONS) - 1))  # the last is cut, at another length there
  pairs = [(QUESTIONS[q][0], option) for q in asked for option in QUESTIONS[q][1]]
  done = subprocess.run(
    [python, '-c', HARNESS_PROGRAM, str(folder), json.dumps(pairs)],
    *(),
    capture_output=True,
    text=True,
    check=True,
    timeout=400,
  )
  expected = json.loads(done.stdout.partition('FOUND')[2])
  found = [s for p in predictions(evaluated[0], 'harness')[:-1] for s in p.option_scores]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def harness_python():
  import os

  if named := os.environ.get('AYA_TRAIN_LM_EVAL'):
    return named
  return sys.executable if importlib.util.find_spec('lm_eval') else None
