"""Barriers between hosts that name who is missing; the key-value store is a dict."""

import threading
import time

import pytest

from aya_train import peers, watchdog


class Store:
  """JAX's key-value store, as its client shows it."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    assert allow_overwrite or key not in self.values
    self.values[key] = value

  def key_value_dir_get(self, folder):
    return [(k, v) for k, v in list(self.values.items()) if k.startswith(folder)]

  def key_value_delete(self, folder):
    for key in [k for k in self.values if k.startswith(folder)]:
      del self.values[key]


@pytest.fixture
def hosts():
  store, said = Store(), {i: [] for i in range(4)}
  made = [peers.Peers(store, i, 4, said[i].append) for i in range(4)]
  for host in made:
    host.said = said[host.index]
  return made


def on_threads(hosts, function):
  results = {}

  def run(host):
    try:
      results[host.index] = function(host)
    except Exception as error:
      results[host.index] = error

  threads = [threading.Thread(target=run, args=[host]) for host in hosts]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(30)
  return results


def test_every_host_hears_what_every_host_said_as_often_as_they_like(hosts):
  def talk(host):
    return [host.exchange(f'round {k}', [host.index, k]) for k in range(20)]

  results = on_threads(hosts, talk)
  expected = [[[i, k] for i in range(4)] for k in range(20)]
  assert results == dict.fromkeys(range(4), expected)
  left = [key for key in hosts[0]._client.values if '/barrier/' in key]
  assert len(left) <= 8  # a long run does not fill the store


def test_a_host_that_does_not_come_is_named_with_what_it_was_at(hosts, monkeypatch):
  monkeypatch.setattr(peers, 'BARRIER_TIMEOUT', 0.3)
  with watchdog.phase('validation loss of step 5'):
    hosts[2].look()
  for host in hosts:
    host.look()
  results = on_threads([hosts[i] for i in (0, 1, 3)], lambda host: host.exchange('save', None))
  for error in results.values():
    assert isinstance(error, peers.MissingHostError)
    assert 'save: waited' in str(error) and 'host 2 of 4' in str(error)
    assert 'host 1' not in str(error)


def test_a_host_that_is_slow_but_moves_is_waited_for(hosts, monkeypatch):
  monkeypatch.setattr(peers, 'BARRIER_TIMEOUT', 0.4)
  come = threading.Event()

  def wait(host):
    if host.index != 2:
      return host.exchange('prepared', host.index)
    for _ in range(6):
      watchdog.beat()
      for other in hosts:
        other.look()
      come.wait(0.2)
    return host.exchange('prepared', host.index)

  assert on_threads(hosts, wait) == dict(enumerate([[0, 1, 2, 3]] * 4))


def test_hosts_that_are_at_different_places_say_so(hosts):
  results = on_threads(hosts, lambda host: host.exchange('save' if host.index else 'end', None))
  assert all(isinstance(error, peers.MissingHostError) for error in results.values())
  assert "host 3 is at 'save' and host 0 at 'end'" in str(results[3])


def test_nothing_is_asked_of_the_store_when_python_ends(hosts, monkeypatch):
  peer, calls = hosts[0], []
  held = peer._client.key_value_dir_get

  def slow(*arguments):
    calls.append('begun')
    time.sleep(0.2)
    calls.append('ended')
    return held(*arguments)

  monkeypatch.setattr(peer._client, 'key_value_dir_get', slow, raising=False)
  peer.start()
  while not calls:
    time.sleep(0.01)
  peer.stop()
  assert calls == ['begun', 'ended'] and not peer._thread.is_alive()


def test_a_host_that_falls_silent_is_told_once_and_taken_back(hosts, monkeypatch):
  monkeypatch.setattr(peers, 'SILENT', 0.2)
  for host in hosts:
    host.look()
  for _ in range(3):
    threading.Event().wait(0.15)
    for i in (0, 1, 3):
      hosts[i].look()
  assert hosts[0].silent() == [2]
  assert 'host 2 of 4' in hosts[0].said[-1] and 'no sign of life' in hosts[0].said[-1]
  monkeypatch.setattr(peers, 'PERIOD', 0.0)
  assert 'host 2 of 4' in hosts[0].lost(wait=5)
  hosts[2].look()
  hosts[0].look()
  assert hosts[0].said[-1] == ''
