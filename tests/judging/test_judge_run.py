"""Runs of a judge: what they cost, and what becomes of them when endpoint or process fail."""

import fcntl
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from aya_train import system_answers
from aya_train.cli import main
from aya_train.judging import (
  chat_endpoint,
  judge_calls,
  judge_protocols,
  judge_run,
  pairwise_judging,
)
from tests.judging import judged_pairs, stand_in_judge, test_chat_endpoint

pytest.importorskip('openai', reason="openai is of the extra 'judge'")

pytestmark = pytest.mark.usefixtures('key')


@pytest.mark.parametrize('words', [[], ['--rubric=refusal'], ['--scorer=moderation']])
def test_a_run_that_judged_nothing_is_an_error_and_one_that_missed_some_says_so(
  tmp_path, capsys, caplog, words
):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY[:6])
  ways = [{'none': True}]

  def behaviour(handler, request, number):
    if 'input' in request:
      scores = {} if ways[0]['none'] or number % 2 else {'hate': 0.5}
      handler.send(200, {'results': [{'category_scores': scores}]})
    elif ways[0]['none'] or number % 2:
      handler.say('Both have something to them.')
    else:
      stand_in_judge.obedient(handler, request, number)

  with stand_in_judge.serving(behaviour) as server:
    command = place.words(server.url, *words, '--concurrency=1', '--ask_again')
    if words:
      command.remove(str(tmp_path / 'two.jsonl'))
    if words == ['--scorer=moderation']:
      command.remove('--ask_again')
    assert main.main(command) == 1
    assert 'no row was judged (n' in capsys.readouterr().err
    ways[0]['none'] = False
    assert main.main(command) == 0
  assert '3 rows have no judgement (n' in caplog.text


def test_what_is_answered_is_never_asked_again_whatever_changes_beside_it(tmp_path):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)
  with stand_in_judge.serving() as server:
    place.judge(server.url, '--rows=10')
    assert len(server.requests) == 10
    place.judge(server.url)
    assert len(server.requests) == 30
    place.judge(server.url, '--names', 'mT0', 'Aya')
    assert len(server.requests) == 30
    assert {r['system_b'] for r in place.verdicts()} == {'Aya'}
    place.judge(server.url, '--request={"temperature": 0.5}')
    assert len(server.requests) == 60
    assert server.requests[-1]['temperature'] == 0.5
    place.judge(server.url, '--request={"temperature": null, "max_completion_tokens": 9}')
    assert 'temperature' not in server.requests[-1]
    assert server.requests[-1]['max_completion_tokens'] == 9


def test_equal_calls_are_made_once(tmp_path):
  same = [{'inputs': 'Q', 'prediction': 'x', 'id': f'{i}'} for i in range(5)]
  other = [{**row, 'prediction': 'yy'} for row in same]
  for name, rows in (('one', same), ('two', other)):
    (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  place = judged_pairs.Place.__new__(judged_pairs.Place)
  place.folder, place.out = tmp_path, tmp_path / 'out'
  with stand_in_judge.serving() as server:
    place.judge(server.url, '--protocol=arena_hard')
  assert len(server.requests) == 2
  assert len({r['key'] for r in place.verdicts()}) == 10


def test_cost_is_told_before_and_after_and_limited(tmp_path, capsys, caplog):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)
  prices = ('--price_in=1000', '--price_out=10000')  # 0.2 a call of the stand-in
  with stand_in_judge.serving() as server:
    with caplog.at_level('INFO', 'aya_train'):
      place.judge(server.url, '--dry_run', *prices)
    assert '30 calls: about' in caplog.text and 'at the prices given' in caplog.text
    assert server.requests == []
    place.judge(server.url, '--max_cost=5', code=1)
    assert '--max_cost needs --price_in and --price_out' in capsys.readouterr().err
    place.judge(server.url, *prices, '--max_cost=1', code=1)
    assert 'that is over --max_cost 1' in capsys.readouterr().err
    assert server.requests == []
    place.judge(server.url, *prices)
  summary = place.summary()
  assert summary['spent']['cost'] == pytest.approx(30 * 0.2)
  assert summary['spent']['requests'] == 30


def test_a_limit_of_cost_holds_where_replies_do_not_say_what_they_took(tmp_path, capsys):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)
  value = {**stand_in_judge.reply('word ' * 8000 + '[[1]]'), 'usage': None}
  prices = ('--price_in=0', '--price_out=100', '--concurrency=1', '--reply_tokens=1')
  with stand_in_judge.serving(lambda h, *_: h.send(200, value)) as server:
    place.judge(server.url, *prices, '--rows=4')
    said = capsys.readouterr().out
    place.judge(server.url, *prices, '--max_cost=5', code=1)
  assert '4 requests, 4 answered' in said
  assert 'of which 4 replies do not say and are estimated, 4.0' in said
  assert 'after 5 of 26 calls' in capsys.readouterr().err


def test_a_run_stops_where_it_has_cost_what_it_may_and_goes_on(tmp_path, capsys):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)

  def dear(handler, request, number):
    value = stand_in_judge.reply('[[1]]')
    handler.send(200, {**value, 'usage': {'prompt_tokens': 10**6, 'completion_tokens': 0}})

  with stand_in_judge.serving(dear) as server:
    prices = ('--price_in=1', '--price_out=0', '--concurrency=1')
    place.judge(server.url, *prices, '--max_cost=7', code=1)
    assert '7.00 were spent of --max_cost 7 after 7 of 30 calls' in capsys.readouterr().err
    assert len(place.verdicts()) == 7
    assert place.summary()['complete'] is False and place.summary()['not_yet'] == 23
    place.judge(server.url, *prices)
  assert len(server.requests) == 30
  assert place.summary()['complete'] is True


def test_a_judge_that_fails_in_ten_ways_judges_all_rows_in_the_end(tmp_path):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)
  ways = [
    *(fail for name, fail in test_chat_endpoint.PASSING.items() if not name.startswith('429 with')),
    lambda h: h.drip(0.01),
    lambda h: time.sleep(0.6),
  ]

  def behaviour(handler, request, number):
    if number % 2:
      ways[number // 2 % len(ways)](handler)
    else:
      stand_in_judge.prefers_longer(handler, request, number)

  with stand_in_judge.serving(behaviour) as server:
    endpoint = chat_endpoint.EndpointSettings(
      'judge-1', server.url, timeout=0.5, first_wait=0.01, attempts=20, concurrency=4
    )
    run = judge_run.RunSettings(str(place.out), endpoint, judge_calls.Prices(1.0, 1.0))
    files = [system_answers.read(tmp_path / f'{name}.jsonl') for name in ('one', 'two')]
    protocol = judge_protocols.load('aya', 'pair')
    settings = pairwise_judging.PairSettings(('one', 'two'), protocol)
    about = pairwise_judging.judge(system_answers.join(*files).pairs, settings, run)
  assert [r['verdict'] for r in place.verdicts()] == ['B>A'] * 30
  spent = about['spent']
  assert spent['requests'] == len(server.requests)
  assert spent['prompt_tokens'] == 100 * 30
  assert sum(spent['failures'].values()) == spent['requests'] - 30
  assert len(spent['failures']) >= 6


def test_a_judge_that_goes_away_stops_the_run_which_goes_on_later(tmp_path, capsys):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)
  away = [True]

  def behaviour(handler, request, number):
    if away[0] and number > 10:
      handler.send(503, {})
    else:
      handler.say('[[tie]]')

  with stand_in_judge.serving(behaviour) as server:
    place.judge(server.url, '--patience=1', '--concurrency=2', code=1)
    assert 'What was answered before is kept; the same command' in capsys.readouterr().err
    assert len(place.verdicts()) == 10
    away[0] = False
    asked = len(server.requests)
    place.judge(server.url)
    assert len(server.requests) == asked + 20
  assert place.summary()['figures']['ties'] == 30


def test_calls_are_made_at_the_same_time_and_no_more_than_asked(tmp_path):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)

  def slow(handler, request, number):
    time.sleep(0.05)
    handler.say('[[tie]]')

  with stand_in_judge.serving(slow) as server:
    place.judge(server.url, '--concurrency=5')
  assert 3 <= server.most_at_once <= 5


def test_a_kill_costs_a_verdict_at_most(tmp_path):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY)

  def slow(handler, request, number):
    time.sleep(0.02)
    stand_in_judge.prefers_longer(handler, request, number)

  with stand_in_judge.serving(slow) as server:
    words = place.words(server.url, '--concurrency=1')
    process = subprocess.Popen(
      [sys.executable, '-m', 'aya_train', *words], cwd=pathlib.Path(__file__).parents[2]
    )
    while len(server.requests) < 8:
      assert process.poll() is None
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(server.requests)
    left = place.verdicts()
    assert asked - 2 <= len(left) <= asked
    with open(place.out / 'replies.jsonl', 'ab') as file:
      file.write(b'{"key": "torn')
    place.judge(server.url)
  assert len(place.verdicts()) == 30
  assert len(server.requests) - 30 <= 2  # what was under way when it was killed


def test_another_process_of_the_same_folder_is_refused(tmp_path, capsys):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY[:2])
  place.out.mkdir()
  with stand_in_judge.serving() as server, open(place.out / 'replies.jsonl', 'ab') as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    place.judge(server.url, code=1)
  assert 'is being written by another process' in capsys.readouterr().err


def test_an_answer_of_another_model_is_told(tmp_path, caplog):
  place = judged_pairs.Place(tmp_path, judged_pairs.MANY[:2])
  with stand_in_judge.serving(lambda h, *_: h.say('[[1]]', 'other-9')) as server:
    place.judge(server.url)
  assert "replies name 'other-9' 2 times" in caplog.text
  assert {r['model'] for r in place.verdicts()} == {'other-9'}
