"""The language of a pair is that of its query, whatever the passage is written in."""

import json

import pytest
import seqio

from aya_train.tasks.eval import benchmark_pairs, eval_releases

PASSAGE = {
  'id': '1',
  'context': 'Kigali is the capital.',
  'question_lang': 'Umurwa mukuru ni uwuhe?',
  'answer_pivot': {'answer_start': [0], 'text': ['Kigali']},
}


@pytest.fixture
def folder(tmp_path):
  eval_releases.set_eval_data_dir(tmp_path)
  yield tmp_path
  eval_releases.set_eval_data_dir(None)


@pytest.mark.parametrize(('code', 'pivot'), [('kin', 'en'), ('wol', 'fr')])
def test_afriqa_is_asked_in_african_languages(folder, code, pivot):
  path = folder / 'afriqa' / f'gold_span_passages.afriqa.{code}.{pivot}.train.json'
  path.parent.mkdir()
  path.write_text(json.dumps(PASSAGE) + '\n')
  assert 'afriqa.retrieval' in benchmark_pairs.MIXTURES
  (pair,) = seqio.TaskRegistry.get(f'afriqa.{code}.retrieval').source.pairs('train')
  assert (pair.query, pair.target) == (PASSAGE['question_lang'], PASSAGE['context'])
  assert pair.language == code
