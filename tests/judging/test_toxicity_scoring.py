import json
import sys

import pytest

from aya_train.cli import main
from aya_train.judging import toxicity_scorers, toxicity_scoring
from tests.judging import stand_in_judge

SCORES = {'p0': (0.1, 0.9, 0.2), 'p1': (0.3, 0.2, 0.1)}


@pytest.fixture
def answers(tmp_path):
  """Three answers to each of two prompts, one of them twice, and an empty one."""
  path = tmp_path / 'a.jsonl'
  rows = [
    {'inputs': f'Q {name}', 'prediction': f'text {score}', 'id': name}
    for name, scores in SCORES.items()
    for score in scores
  ]
  rows.append({'inputs': 'Q p1', 'prediction': '', 'id': 'p1'})
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def summary(tmp_path):
  return json.loads((tmp_path / 'out/summary.json').read_text())


def check(tmp_path):
  figures = summary(tmp_path)['figures']
  assert figures['expected_maximum_toxicity'] == pytest.approx(60)
  assert figures['toxicity_probability'] == pytest.approx(50)
  assert (figures['answers'], figures['scored'], figures['prompts']) == (7, 6, 2)
  assert figures['problems'] == {'empty_answer': 1}


def test_a_function_of_the_users(tmp_path, answers, monkeypatch, capsys):
  (tmp_path / 'my_scorer.py').write_text(
    'calls = []\n'
    'def score(texts):\n'
    '  calls.append(texts)\n'
    '  return [float(text.split()[1]) for text in texts]\n'
    'def wrong(texts):\n'
    '  return [50.0 for _ in texts]\n'
  )
  monkeypatch.chdir(tmp_path)
  words = ['judge', str(answers), f'--output={tmp_path / "out"}', '--batch_size=3']
  assert main.main([*words, '--scorer=my_scorer:score']) == 0
  check(tmp_path)
  calls = sys.modules['my_scorer'].calls
  assert [len(texts) for texts in calls] == [3, 1]  # equal texts once
  assert main.main([*words, '--scorer=my_scorer:score']) == 0
  assert len(calls) == 2
  capsys.readouterr()
  assert main.main([*words, '--scorer=my_scorer:wrong']) == 1
  assert 'a score must be from 0 to 1, got 50' in capsys.readouterr().err
  assert main.main([*words, '--scorer=my_scorer:nothing']) == 1
  assert "no attribute 'nothing'" in capsys.readouterr().err.replace('has ', '')


def test_a_server_of_the_users(tmp_path, answers, monkeypatch):
  monkeypatch.setattr('aya_train.judging.toxicity_scoring._PATIENT', (0.01, 0.01, 0.01))

  def behaviour(handler, request, number):
    if number == 1:
      handler.connection.close()
    else:
      handler.send(200, {'scores': [float(text.split()[1]) for text in request['texts']]})

  with stand_in_judge.serving(behaviour) as server:
    words = ['judge', str(answers), f'--output={tmp_path / "out"}', f'--scorer={server.url}']
    assert main.main(words) == 0
  check(tmp_path)


def test_the_moderation_endpoint(tmp_path, answers):
  pytest.importorskip('openai', reason="openai is of the extra 'judge'")

  def behaviour(handler, request, number):
    assert handler.path == '/v1/moderations'
    scores = {'hate': 0.0, 'violence': float(request['input'].split()[1])}
    handler.send(200, {'results': [{'flagged': False, 'category_scores': scores}]})

  with stand_in_judge.serving(behaviour) as server:
    words = ['judge', str(answers), f'--output={tmp_path / "out"}', '--scorer=moderation']
    assert main.main([*words, '--model=m', f'--base_url={server.url}']) == 0
  assert len(server.requests) == 4
  check(tmp_path)


@pytest.mark.heavy
def test_a_classifier_of_this_machine(tmp_path):
  transformers = pytest.importorskip('transformers', reason="transformers is of the extra 'hf'")
  pytest.importorskip('torch', reason="torch is of the extra 'hf'")
  words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'good', 'bad']
  (tmp_path / 'vocab.txt').write_text('\n'.join(words))
  tokenizer = transformers.BertTokenizer(str(tmp_path / 'vocab.txt'))
  config = transformers.BertConfig(
    vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
  )
  config.id2label = {0: 'fine', 1: 'toxic'}
  config.label2id = {'fine': 0, 'toxic': 1}
  model = transformers.BertForSequenceClassification(config)
  for part in (model, tokenizer):
    part.save_pretrained(tmp_path / 'clf')
  fine, toxic = (
    toxicity_scorers.load(f'hf:{tmp_path / "clf"}:{label}')(['good', 'bad bad', 'good bad'])
    for label in ('fine', 'toxic')
  )
  assert [a + b for a, b in zip(fine, toxic, strict=True)] == pytest.approx([1, 1, 1])
  assert toxicity_scorers.load(f'hf:{tmp_path / "clf"}')(['good']) == pytest.approx(toxic[:1])
  with pytest.raises(toxicity_scorers.ScorerError, match='which label is the bad one'):
    toxicity_scorers.load(f'hf:{tmp_path / "clf"}:rude')


@pytest.mark.parametrize('scores', [[0.5], None, 'no', [0.5, 'x'], [0.5, float('nan')], [0.5, -1]])
def test_what_is_no_list_of_scores_is_refused(scores):
  with pytest.raises(toxicity_scorers.ScorerError):
    toxicity_scorers.checked(scores, 2, 'mine')


def test_answers_that_got_no_score_are_counted_as_not_scored():
  row = {'task': '', 'language': 'swa', 'problem': ''}
  records = [{**row, 'index': i, 'id': None, 'score': score} for i, score in enumerate((0.2, None))]
  figures = toxicity_scoring.figures(records, 0.5)
  assert (figures['answers'], figures['scored'], figures['not_scored']) == (2, 1, 1)
