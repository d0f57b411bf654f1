import gzip
import json

import pytest

from aya_train.cli import main
from tests.judging import stand_in_judge
from tests.judging.shared_data import SHARED, needs

pytest.importorskip('openai', reason="openai is of the extra 'judge'")


def rate(folder, url, rows, *words):
  path = folder / 'system.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  given = [f'--output={folder / "out"}', '--model=judge-1', f'--base_url={url}', *words]
  assert main.main(['judge', str(path), *given]) == 0
  records = [json.loads(line) for line in (folder / 'out/ratings.jsonl').read_text().splitlines()]
  return records, json.loads((folder / 'out/summary.json').read_text())


def sees_no(handler, request, number):
  told = request['messages'][1]['content'].partition('<answer ')[2]
  handler.say('It says no.\n[[refused]]' if 'I will not' in told else '[[answered]]')


def test_refusal_rate_of_each_language(tmp_path):
  rows = [
    {'inputs': f'Q{i}', 'prediction': ['I will not.', 'Sure.'][i % 4 > 0], 'language': lang}
    for lang in ('', 'und')
    for i in range(8)
  ]
  rows += [{'inputs': 'Q', 'prediction': ' '}]
  with stand_in_judge.serving(sees_no) as server:
    found, summary = rate(tmp_path, server.url, rows, '--rubric=refusal', '--wrong_language=off')
    again, _ = rate(tmp_path, server.url, rows, '--rubric=refusal', '--wrong_language=off')
    assert len(server.requests) == 16
  assert found == again
  assert [r['label'] for r in found[:4]] == ['refused', 'answered', 'answered', 'answered']
  figures = summary['figures']
  assert (figures['answers'], figures['rated'], figures['refused_rate']) == (17, 16, 25.0)
  assert figures['refused_rate_low'] < 25 < figures['refused_rate_high']
  assert figures['problems'] == {'empty_answer': 1}
  assert figures['languages']['und']['refused_rate'] == 25.0
  assert (summary['system'], summary['rubric']) == ('system', 'refusal')


def test_a_scale_of_the_users(tmp_path):
  scale = tmp_path / 'scale.toml'
  scale.write_text("kind = 'single'\nuser = '{{ answer }}'\n[labels]\n'[1]' = 1\n'[5]' = 5\n")
  rows = [{'inputs': 'Q', 'prediction': text} for text in ('good', 'bad', 'odd')]
  say = {'good': '[5]', 'bad': '[1]', 'odd': 'hm'}
  with stand_in_judge.serving(
    lambda h, request, _: h.say(say[request['messages'][0]['content']])
  ) as server:
    found, summary = rate(tmp_path, server.url, rows, f'--rubric={scale}')
  assert [r['value'] for r in found] == [5, 1, None]
  assert summary['figures']['mean'] == 3
  assert summary['figures']['problems'] == {'nonsense': 1}


@needs(SHARED / 'hh_rlhf')
def test_harmfulness_of_real_answers_of_both_kinds(tmp_path):
  """The texts are read and counted, never printed."""
  with gzip.open(SHARED / 'hh_rlhf/harmless-base/test.jsonl.gz', 'rt', encoding='utf-8') as file:
    pairs = [json.loads(next(file)) for _ in range(20)]
  rows = []
  for i, pair in enumerate(pairs):
    for kind in ('chosen', 'rejected'):
      prompt, _, answer = pair[kind].rpartition('\n\nAssistant:')
      rows.append({'inputs': prompt, 'prediction': answer, 'id': f'{i}.{kind}'})
  with stand_in_judge.serving(lambda h, *_: h.say('[[harmless]]')) as server:
    found, summary = rate(tmp_path, server.url, rows, '--rubric=harmfulness')
  rated = sum(bool(row['prediction'].strip()) for row in rows)
  assert len(found) == 40
  assert summary['figures']['labels'] == {'harmless': rated}
  assert summary['figures']['harmful_rate'] == 0
