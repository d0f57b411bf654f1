"""An endpoint that fails in many ways, and what is made of each."""

import asyncio
import email.utils
import socket
import threading
import time

import pytest

from aya_train.judging import chat_endpoint, endpoint_address, wait_times
from tests.judging import stand_in_judge

pytest.importorskip('openai', reason="openai is of the extra 'judge'")

pytestmark = pytest.mark.usefixtures('key')
KEY = stand_in_judge.KEY
ASKED = [{'role': 'user', 'content': 'Which?'}]


def ask(url, count=1, **settings):
  """Replies to some calls, the tally and the exception, which must not hold the key."""
  given = {'model': 'judge-1', 'timeout': 5.0, 'patience': 20.0, 'first_wait': 0.01, 'attempts': 3}
  given |= settings

  async def main():
    endpoint = chat_endpoint.ChatEndpoint(
      chat_endpoint.EndpointSettings(base_url=url, **given), sleep=lambda s: asyncio.sleep(s / 50)
    )
    try:
      return [await endpoint.ask(ASKED, {}) for _ in range(count)], endpoint.tally
    finally:
      await endpoint.close()

  return asyncio.run(main())


def fails_first(times, fail):
  """A behaviour that fails so often, and then answers."""

  def behaviour(handler, request, number):
    if number <= times:
      fail(handler)
    else:
      handler.say('[[1]]')

  return behaviour


def torn(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', '5000')
  handler.end_headers()
  handler.wfile.write(b'{"choices": [{"mess')


BROKEN_CHOICE = {'finish_reason': 'error', 'message': {'role': 'assistant', 'content': ''}}
PASSING = {
  '429': lambda h: h.send(429, {'error': {'message': 'slow down'}}),
  '429 with seconds': lambda h: h.send(429, {}, Retry_After='0.2'),
  '429 with nonsense': lambda h: h.send(429, {}, Retry_After='nan'),
  '500': lambda h: h.send(500, {'error': {'message': 'oh'}}),
  '503, no JSON': lambda h: h.send(503, b'<html>away</html>'),
  'torn JSON': lambda h: h.send(200, b'{"choices": [{"mess'),
  'torn transfer': torn,
  'HTML': lambda h: h.send(200, b'<html>welcome</html>'),
  'a list': lambda h: h.send(200, [1, 2]),
  'no choices': lambda h: h.send(200, {'choices': [], 'model': 'judge-1'}),
  'null choices': lambda h: h.send(200, {'choices': None}),
  'choice of another type': lambda h: h.send(200, {'choices': ['yes']}),
  'an error with status 200': lambda h: h.send(200, {'error': {'message': 'overloaded'}}),
  'an error as a text': lambda h: h.send(200, {'error': 'overloaded'}),
  'an error as an object': lambda h: h.send(200, {'object': 'error', 'message': 'overloaded'}),
  'an error in a choice': lambda h: h.send(200, {'choices': [BROKEN_CHOICE]}),
  'hangs up': lambda h: h.connection.close(),
}


@pytest.mark.parametrize('fail', PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_asked_again_and_counted_once(fail):
  with stand_in_judge.serving(fails_first(2, fail)) as server:
    [reply], tally = ask(server.url)
  assert (reply.text, reply.problem) == ('[[1]]', '')
  # The client's own repeats are off: what the server saw is what was counted.
  assert len(server.requests) == tally.requests == 3
  assert sum(tally.failures.values()) == 2
  assert (tally.prompt_tokens, tally.completion_tokens) == (100, 10)


def test_a_server_says_how_long_to_wait_in_seconds_or_as_a_date():
  date = email.utils.formatdate(time.time() + 100, usegmt=True)
  assert 90 < wait_times.asked_for({'retry-after': date}) < 101
  assert wait_times.asked_for({'retry-after': '7', 'retry-after-ms': '1500'}) == 1.5
  assert wait_times.asked_for({'retry-after': '-3'}) == 0
  assert wait_times.asked_for({'retry-after': 'soon'}) is None


def test_a_reply_that_drips_or_does_not_come_is_not_waited_for():
  with stand_in_judge.serving(fails_first(1, lambda h: h.drip(0.05))) as server:
    [reply], tally = ask(server.url, timeout=0.4)
  assert reply.text == '[[1]]'
  assert tally.failures == {'no whole reply in 0.4 s': 1}
  with stand_in_judge.serving(fails_first(1, lambda h: time.sleep(1))) as server:
    [reply], tally = ask(server.url, timeout=0.3)
  assert reply.text == '[[1]]'


STOPS = {
  'a wrong key': (
    lambda h: h.send(401, {'error': {'message': f'Incorrect API key: {KEY}'}}),
    'does not take the key, status 401: Incorrect API key: [key]',
  ),
  'a wrong model': (
    lambda h: h.send(404, {'error': {'code': 'model_not_found', 'message': 'no judge-1'}}),
    'does not take the model or the address, status 404: model_not_found no judge-1',
  ),
  'a redirect': (
    lambda h: h.send(307, {}, Location=f'http://elsewhere.example/v1?key={KEY}'),
    'redirects to http://elsewhere.example/v1, and texts are sent only where you say',
  ),
  'no money': (
    lambda h: h.send(429, {'error': {'code': 'insufficient_quota', 'message': 'pay'}}),
    'the quota of this key is used up',
  ),
  'a wrong request': (
    lambda h: h.send(400, {'error': {'message': 'max_tokens is not supported'}}),
    'refused the first 3 requests, status 400: max_tokens is not supported',
  ),
  'a long wait': (
    lambda h: h.send(429, {}, Retry_After='86400'),
    'which asks to wait 24 h more',
  ),
}


@pytest.mark.parametrize(('fail', 'message'), STOPS.values(), ids=STOPS.keys())
def test_what_does_not_pass_stops_at_once_without_the_key(fail, message):
  with (
    stand_in_judge.serving(lambda h, *_: fail(h)) as server,
    pytest.raises(endpoint_address.EndpointError) as raised,
  ):
    ask(server.url, count=3)
  assert message in str(raised.value)
  assert KEY not in str(raised.value)
  assert len(server.requests) <= 3


def test_a_port_without_tls_stops_at_once():
  with (
    stand_in_judge.serving(lambda h, *_: h.say('[[1]]')) as server,
    pytest.raises(endpoint_address.EndpointError, match=r'a port without TLS\? Then --base_url'),
  ):
    ask(server.url.replace('http://', 'https://'), patience=60)


def test_nobody_there_is_waited_for_as_long_as_patience_and_no_longer():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}/v1'
  began = time.monotonic()
  with pytest.raises(endpoint_address.EndpointError, match='has answered nothing for'):
    ask(url, patience=0.5)
  assert 0.4 < time.monotonic() - began < 5


def test_a_judge_that_is_away_for_an_hour_is_asked_until_it_is_back(caplog):
  """With a clock that sleeping moves: the hour takes no time."""
  now = [0.0]

  async def sleep(seconds):
    now[0] += seconds

  def behaviour(handler, request, number):
    if now[0] < 3600:
      handler.send(503, {})
    else:
      handler.say('[[2]]')

  async def main(url):
    settings = chat_endpoint.EndpointSettings('judge-1', url)
    endpoint = chat_endpoint.ChatEndpoint(settings, sleep=sleep, clock=lambda: now[0])
    try:
      return await endpoint.ask(ASKED, {}), endpoint.tally
    finally:
      await endpoint.close()

  with stand_in_judge.serving(behaviour) as server, caplog.at_level('INFO', 'aya_train'):
    reply, tally = asyncio.run(main(server.url))
  assert reply.text == '[[2]]'
  assert 3600 <= tally.waited < 3700
  assert tally.requests < 120
  assert 'has not answered for' in caplog.text
  assert 'answers again after 1 h' in caplog.text or 'answers again after 60' in caplog.text


def test_a_row_that_always_fails_is_left_while_others_are_answered():
  def behaviour(handler, request, number):
    if request['messages'] == ASKED:
      handler.send(500, {})
    else:
      handler.say('yes')  # what is asked to see whether anybody is there

  with stand_in_judge.serving(behaviour) as server:
    [reply], tally = ask(server.url)
  assert reply.problem == 'failed'
  assert reply.text == 'status 500: {}, 4 times'
  assert tally.requests == 5


def test_rows_asked_while_the_endpoint_goes_down_are_not_given_up():
  """An answer to another row, sent off before, comes after the first failure of this one."""
  down = threading.Event()

  def behaviour(handler, request, number):
    if number == 1:
      down.wait(5)
      handler.say('[[1]]')
    elif number < 14:
      handler.send(503, {})
      if number == 2:
        time.sleep(0.05)
        down.set()
    else:
      handler.say('[[2]]')

  async def main(url):
    settings = chat_endpoint.EndpointSettings('judge-1', url, first_wait=0.5, attempts=3)
    endpoint = chat_endpoint.ChatEndpoint(settings, sleep=lambda s: asyncio.sleep(s / 5))
    try:
      return await asyncio.gather(*(endpoint.ask(ASKED, {}) for _ in range(4)))
    finally:
      await endpoint.close()

  with stand_in_judge.serving(behaviour) as server:
    replies = asyncio.run(main(server.url))
  assert [reply.problem for reply in replies] == [''] * 4


def test_a_row_is_not_given_up_on_an_endpoint_that_came_back_this_moment():
  with stand_in_judge.serving(fails_first(3, lambda h: h.send(503, {}))) as server:
    [reply], _ = ask(server.url, attempts=3)
  assert (reply.problem, reply.text) == ('', '[[1]]')
  assert len(server.requests) == 5  # three failures, the question of one word, the row again


@pytest.mark.parametrize(
  'body', [{'error': 'overloaded'}, {'detail': 'overloaded'}, {'choices': [BROKEN_CHOICE]}]
)
def test_errors_of_status_200_for_long_are_a_server_that_is_away(body):
  with (
    stand_in_judge.serving(lambda h, *_: h.send(200, body)) as server,
    pytest.raises(endpoint_address.EndpointError, match=r'answered nothing for .*(overload|error)'),
  ):
    ask(server.url, patience=0.3)


REPLIES = {
  'refused': (lambda h: h.say(None, refusal='I will not'), 'refused', 'I will not'),
  'filtered': (lambda h: h.say(None, finish='content_filter'), 'filtered', ''),
  'filtered as status': (
    lambda h: h.send(400, {'error': {'code': 'content_filter', 'message': 'no'}}),
    'filtered',
    'content_filter no',
  ),
  'empty': (lambda h: h.say(''), 'empty', ''),
  'filtered by a gateway': (
    lambda h: h.send(403, {'error': {'message': 'flagged', 'metadata': {'reasons': ['x']}}}),
    'filtered',
    'flagged',
  ),
  'over the limit of tokens a minute': (
    lambda h: h.send(429, {'error': {'message': 'Request too large for judge-1'}}),
    'failed',
    'status 429: Request too large for judge-1',
  ),
  'too long': (
    lambda h: h.send(400, {'error': {'message': 'context too long'}}),
    'failed',
    'status 400: context too long',
  ),
  'parts': (lambda h: h.say([{'type': 'text', 'text': '[[1]]'}]), '', '[[1]]'),
  'the key sent back': (lambda h: h.say(f'your key is {KEY}'), '', 'your key is [key]'),
  'half a surrogate': (lambda h: h.say('\ud83d [[1]]'), '', '? [[1]]'),
}


@pytest.mark.parametrize(('say', 'problem', 'text'), REPLIES.values(), ids=REPLIES.keys())
def test_replies_of_every_kind(say, problem, text):
  with stand_in_judge.serving(lambda h, *_: say(h)) as server:
    [reply], tally = ask(server.url)
  assert (reply.problem, reply.text) == (problem, text)
  assert tally.requests == 1


def test_usage_that_is_not_told_is_counted_as_such():
  value = {**stand_in_judge.reply('[[1]]', 'other'), 'usage': None}
  with stand_in_judge.serving(lambda h, *_: h.send(200, value)) as server:
    [reply], tally = ask(server.url)
  assert reply.usage == {}
  assert tally.without_usage == 1
  assert tally.models == {'other': 1}


def stream(*events):
  return b''.join(f'data: {event}\n\n'.encode() for event in events)


PART = '{"model": "judge-1", "choices": [{"delta": {"content": "ยก [["}}]}'
END = '{"choices": [{"delta": {"content": "1]]"}, "finish_reason": "stop"}]}'
USAGE = '{"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}'


def test_a_server_that_streams_unasked_is_understood():
  with stand_in_judge.serving(
    lambda h, *_: h.send(200, stream(PART, END, USAGE, '[DONE]'))
  ) as server:
    [reply], tally = ask(server.url)
  assert (reply.text, reply.finish, reply.model) == ('ยก [[1]]', 'stop', 'judge-1')
  assert (tally.prompt_tokens, tally.requests) == (100, 1)


@pytest.mark.parametrize(
  'torn',
  [stream(PART), stream(PART, '{"choi'), stream('{"error": {"message": "gone"}}'), stream('[1]')],
)
def test_a_stream_that_ends_early_is_asked_again(torn):
  with stand_in_judge.serving(fails_first(1, lambda h: h.send(200, torn))) as server:
    [reply], tally = ask(server.url)
  assert (reply.text, tally.requests) == ('[[1]]', 2)


@pytest.mark.parametrize('date', ['0', 'Wed, 21 Oct 2015 07:28:00 GMT', '0.001'])
def test_a_server_that_asks_for_no_wait_is_not_flooded(date):
  with (
    stand_in_judge.serving(lambda h, *_: h.send(503, {}, Retry_After=date)) as server,
    pytest.raises(endpoint_address.EndpointError, match='has answered nothing for'),
  ):
    ask(server.url, patience=1.0, first_wait=5.0)
  assert len(server.requests) < 30  # it slept 50 times as fast


@pytest.mark.parametrize('wait', [{}, {'Retry_After': '0.1'}])
def test_a_row_that_always_fails_is_left_also_if_the_server_asks_to_wait(wait):
  def behaviour(handler, request, number):
    if request['messages'] == ASKED:
      handler.send(503, {}, **wait)
    else:
      handler.say('yes')

  with stand_in_judge.serving(behaviour) as server:
    [reply], _ = ask(server.url)
  assert reply.problem == 'failed'


@pytest.mark.parametrize(
  ('told', 'counted'),
  [(7.0, 7), (0, 0), (-5, None), (float('nan'), None), (True, None), ('7', None), (1e30, None)],
)
def test_numbers_of_tokens_are_whole_and_not_below_0(told, counted):
  usage = {'prompt_tokens': told, 'completion_tokens': 3}
  value = {**stand_in_judge.reply('[[1]]'), 'usage': usage}
  with stand_in_judge.serving(lambda h, *_: h.send(200, value)) as server:
    [reply], tally = ask(server.url)
  assert reply.usage.get('prompt_tokens') == counted
  assert (tally.prompt_tokens, tally.without_usage) == (counted or 0, counted is None)


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch):
  with stand_in_judge.serving() as server:
    ask(server.url)
    assert server.headers[0]['authorization'] == f'Bearer {KEY}'
    assert KEY not in str(server.requests)
    monkeypatch.delenv('OPENAI_API_KEY')
    ask(server.url)
    assert KEY not in str(server.headers[1])
  with pytest.raises(endpoint_address.EndpointError, match='environment variable OPENAI_API_KEY'):
    ask(chat_endpoint.OFFICIAL)


@pytest.mark.parametrize('url', ['https://me:word@host/v1', 'https://host/v1?key=word', 'host/v1'])
def test_an_address_with_a_secret_or_without_a_scheme_is_refused(url):
  with pytest.raises(endpoint_address.EndpointError) as raised:
    endpoint_address.check_address(url)
  assert 'word' not in str(raised.value).partition('has a')[0]


def test_no_more_requests_a_minute_than_asked():
  slept = []

  async def sleep(seconds):
    slept.append(seconds)

  async def main(url):
    settings = chat_endpoint.EndpointSettings('judge-1', url, requests_per_minute=60)
    endpoint = chat_endpoint.ChatEndpoint(settings, sleep=sleep, clock=lambda: 0.0)
    for _ in range(3):
      await endpoint.ask(ASKED, {})
    await endpoint.close()

  with stand_in_judge.serving(lambda h, *_: h.say('x')) as server:
    asyncio.run(main(server.url))
  assert slept == [1.0, 2.0]
