"""Rewards of functions and servers, and what is no reward."""

import contextlib
import http.server
import json
import threading

import pytest

from aya_train import reward_sources


@contextlib.contextmanager
def server(replies):
  seen = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      seen.append((body, self.headers.get('Authorization')))
      status, reply = replies(body, len(seen))
      self.send_response(status)
      self.end_headers()
      self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *args):
      pass

  found = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=found.serve_forever, daemon=True)
  thread.start()
  yield f'http://127.0.0.1:{found.server_port}/score', seen
  found.shutdown()
  found.server_close()


def test_names_tell_functions_servers_and_paths_apart():
  assert reward_sources.is_one('module:function')
  assert reward_sources.is_one('https://host/score')
  assert not reward_sources.is_one('runs/reward')
  assert not reward_sources.is_one('gs://bucket/reward')


def test_a_function_of_ones_own_is_asked(tmp_path, monkeypatch):
  (tmp_path / 'tests_own_reward.py').write_text(
    'def length(prompts, answers):\n  return [len(p) - len(a) for p, a in zip(prompts, answers)]\n'
  )
  monkeypatch.chdir(tmp_path)
  rewards = reward_sources.load('tests_own_reward:length')
  assert rewards(['four', 'x'], ['', 'yy']) == [4.0, -1.0]
  with pytest.raises(reward_sources.RewardError, match='no reward'):
    reward_sources.load('tests_own_reward:lenght')


def test_a_server_is_asked_again_where_it_stumbles(monkeypatch):
  monkeypatch.setattr(reward_sources.time, 'sleep', lambda seconds: None)
  monkeypatch.setenv('REWARD_API_KEY', 'secret')

  def reply(body, count):
    return (503, {}) if count == 1 else (200, {'rewards': [len(a) for a in body['answers']]})

  with server(reply) as (url, seen):
    assert reward_sources.load(url)(['p', 'q'], ['a', 'bb']) == [1.0, 2.0]
  assert seen[1] == ({'prompts': ['p', 'q'], 'answers': ['a', 'bb']}, 'Bearer secret')


def test_a_refusal_of_a_server_is_final_and_says_no_key(monkeypatch):
  monkeypatch.setenv('REWARD_API_KEY', 'secret')
  with server(lambda body, count: (401, {'error': 'secret'})) as (url, seen):
    with pytest.raises(reward_sources.RewardError, match='401') as caught:
      reward_sources.load(url)(['p'], ['a'])
    assert 'secret' not in str(caught.value) and len(seen) == 1


@pytest.mark.parametrize(
  ('rewards', 'message'),
  [
    ([1.0], r'expected a list of 2 numbers, got 1'),
    ('12', 'got no list'),
    ([1.0, 'x'], 'is no number'),
    ([1.0, float('nan')], 'must be finite'),
  ],
)
def test_what_is_no_reward_is_refused(rewards, message):
  with pytest.raises(reward_sources.RewardError, match=message):
    reward_sources.checked(rewards, 2, 'mine')
