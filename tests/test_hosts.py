"""Joining other hosts, where they do not come."""

import jax
import pytest

from aya_train import hosts
from aya_train.cli import main


def refuse(*args, **kwargs):
  raise RuntimeError('Barrier timed out')


def test_hosts_that_do_not_come_are_named_as_the_cause(monkeypatch):
  monkeypatch.setattr(jax.distributed, 'initialize', refuse)
  with pytest.raises(hosts.JoinError, match=r'same command run on all.*Barrier timed out'):
    hosts.join('localhost:1', 2, 0)


def test_a_host_that_waited_in_vain_ends_with_the_code_that_is_started_again(monkeypatch, capsys):
  monkeypatch.setattr(jax.distributed, 'initialize', refuse)
  assert main.main(['train', '--gin_file=aya101.gin', '--multihost']) == 3
  said = capsys.readouterr().err
  assert 'same command run on all' in said
  assert 'Traceback' not in said


@pytest.mark.parametrize(
  ('said', 'lost'),
  [
    ('UNAVAILABLE: the coordination service is gone', True),
    ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4.00GiB.', False),
  ],
)
def test_a_host_without_memory_is_not_another_host_lost(monkeypatch, said, lost):
  monkeypatch.setattr(hosts, 'several', lambda: True)
  assert hosts.is_lost(type('JaxRuntimeError', (RuntimeError,), {})(said)) == lost
