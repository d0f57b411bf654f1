import json

import pytest
import seqio

from aya_train.cli import main
from aya_train.judging import teacher_answers
from aya_train.tasks.rights import provenance
from aya_train.tasks.user import user_data
from tests.judging import stand_in_judge

SAFE = 'I would rather not help with request number {}, since somebody could be hurt by it.'


@pytest.fixture
def prompts(tmp_path):
  path = tmp_path / 'prompts.jsonl'
  rows = [{'prompt': f'Do thing {i}', 'lang': 'swh' if i % 2 else 'eng'} for i in range(10)]
  path.write_text(''.join(json.dumps(row) + '\n' for row in [*rows, rows[0]]))
  return path


@pytest.fixture
def registries():
  kept = [seqio.TaskRegistry._REGISTRY, user_data._DATASETS, user_data._MIXTURES]
  before = [dict(registry) for registry in kept]
  yield
  for registry, old in zip(kept, before, strict=True):
    registry.clear()
    registry.update(old)


def teacher(handler, request, number):
  asked = request['messages'][-1]['content'].rpartition(' ')[2]
  said = {'3': 'no', '4': 'x' * 1001, '5': 'All right, here. ' * 4}.get(asked, SAFE.format(asked))
  handler.say(said)


def words(tmp_path, prompts, *more):
  return ['teach', str(prompts), f'--output={tmp_path / "out"}', '--license=Apache-2.0', *more]


def test_prompts_become_a_task_that_says_where_it_comes_from(tmp_path, prompts, registries):
  pytest.importorskip('openai', reason="openai is of the extra 'judge'")
  with stand_in_judge.serving(teacher) as server:
    given = words(tmp_path, prompts, '--model=teacher-1', f'--base_url={server.url}', '--name=mine')
    assert main.main(given) == 0
    assert main.main(given) == 0
  assert len(server.requests) == 10
  request = server.requests[0]
  assert (request['temperature'], request['top_p'], request['max_tokens']) == (0.9, 0.8, 1024)
  assert request['messages'][0] == {'role': 'system', 'content': teacher_answers.PREAMBLE}
  summary = json.loads((tmp_path / 'out/summary.json').read_text())
  assert summary['dropped'] == {'short': 1, 'long': 1, 'repeated': 1, 'duplicate': 1}
  assert summary['kept'] == 7
  user_data.add_tables([str(tmp_path / 'out/mine.toml')])
  task = seqio.get_mixture_or_task('mine')
  rows = list(task.source.get_dataset('train', shuffle=False).as_numpy_iterator())
  assert len(rows) == 7
  assert rows[0]['inputs'] == b'Do thing 0'  # without the preamble
  assert rows[0]['targets'].decode() == SAFE.format(0)
  record = provenance.record_of('mine')
  assert record.model_generated_by == ('teacher-1',)
  assert [name for name, _ in record.licenses] == ['Apache-2.0']


def test_a_preamble_for_each_language_and_rows_held_out(tmp_path, prompts):
  pytest.importorskip('openai', reason="openai is of the extra 'judge'")
  preambles = tmp_path / 'p.toml'
  preambles.write_text('swh = "Kuwa salama."\ndefault = "Be safe."\n')
  with stand_in_judge.serving(teacher) as server:
    more = ('--model=t', f'--base_url={server.url}', f'--preamble={preambles}', '--in_prompt')
    assert main.main(words(tmp_path, prompts, *more, '--validation=0.4')) == 0
  told = sorted(request['messages'][0]['content'] for request in server.requests)
  assert told[0] == 'Be safe.\n\nDo thing 0'
  assert told[-1] == 'Kuwa salama.\n\nDo thing 9'
  splits = [
    (tmp_path / f'out/safe.{split}.jsonl').read_text().count('\n')
    for split in ('train', 'validation')
  ]
  assert sum(splits) == 7 and min(splits) > 0


def test_a_checkpoint_is_a_teacher_through_infer(tmp_path, prompts):
  asked, answered = tmp_path / 'asked.jsonl', tmp_path / 'answered.jsonl'
  assert main.main(words(tmp_path, prompts, f'--write_prompts={asked}')) == 0
  rows = [json.loads(line) for line in asked.read_text().splitlines()]
  assert rows[1]['inputs'] == f'{teacher_answers.PREAMBLE}\n\nDo thing 1'
  answered.write_text(
    ''.join(json.dumps({**row, 'prediction': SAFE.format(row['id'])}) + '\n' for row in rows)
  )
  more = (f'--answers={answered}', '--teacher=aya-beta')
  assert main.main(words(tmp_path, prompts, *more)) == 0
  lines = (tmp_path / 'out/safe.train.jsonl').read_text().splitlines()
  assert json.loads(lines[1]) == {
    'id': '1',
    'language': 'swh',
    'inputs': 'Do thing 1',
    'targets': SAFE.format(1),
  }
  assert 'aya-beta' in (tmp_path / 'out/safe.toml').read_text()


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (['--license=My own'], "licence 'My own' is in no table"),
    (['--name=a b'], '--name must be of letters'),
    (['--validation=1'], '--validation is a share'),
    (['--columns', 'language=nothing'], "has no column 'nothing'"),
    (['--language=xxyy'], "unknown language code 'xxyy'"),
    (['--answers=x.jsonl'], '--answers needs --teacher'),
    (['--preamble=no.txt'], 'no preamble at no.txt'),
  ],
)
def test_what_would_fail_after_the_work_is_refused_before(tmp_path, prompts, capsys, more, message):
  given = words(tmp_path, prompts, '--model=t', '--base_url=http://127.0.0.1:9/v1', *more)
  assert main.main(given) == 1
  assert message in capsys.readouterr().err
