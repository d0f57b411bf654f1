"""Rewards of answers: of a function of one's own, or of a server.

- `MODULE:FUNCTION`: called with a list of prompts and a list of answers, gives a list of numbers;
- `http(s)://...`: a server that gets `{"prompts": [...], "answers": [...]}` and sends
  `{"rewards": [...]}`.
"""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from aya_train import user_functions

Rewards = Callable[[Sequence[str], Sequence[str]], list[float]]
TIMEOUT = 120.0  # seconds for a server's reply
_TRIES = 4


class RewardError(ValueError):
  """A reward that cannot be had, or that gives something other than numbers."""


def is_one(name: str) -> bool:
  """Whether a name is that of a function or a server, and not a path."""
  return name.startswith(('http://', 'https://')) or ('://' not in name and ':' in name)


def load(name: str) -> Rewards:
  """The function or the server of a name, see the module.

  Args:
    name: of it. A server's key is read from the environment variable REWARD_API_KEY.

  Raises:
    RewardError: there is no such function, or the address is none.
  """
  if name.startswith(('http://', 'https://')):
    return _server(name, os.environ.get('REWARD_API_KEY', '').strip())
  try:
    found = user_functions.load(name)
  except ValueError as error:
    raise RewardError(
      f'no reward {name!r}: {error}. Give MODULE:FUNCTION, http(s)://... or the path of a reward '
      'model'
    ) from error
  return lambda prompts, answers: checked(found(list(prompts), list(answers)), len(answers), name)


def checked(rewards: Any, count: int, name: str) -> list[float]:
  """Rewards as finite numbers, one an answer; RewardError says what they are instead."""
  try:
    return user_functions.numbers(rewards, count, 'reward')
  except ValueError as error:
    raise RewardError(f'reward {name}: {error}') from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  def redirect_request(self, *args: Any, **options: Any) -> None:
    return None


def _server(url: str, key: str) -> Rewards:
  """Posts prompts and answers; the key, where there is one, goes along as a bearer's token."""
  parts = urllib.parse.urlsplit(url)
  if not parts.hostname or parts.username or parts.password:
    raise RewardError('the address of a reward server has a host, and no name or password in it')
  place = f'{parts.scheme}://{parts.netloc}{parts.path}'
  opener = urllib.request.build_opener(_NoRedirect)
  headers = {'Content-Type': 'application/json', 'User-Agent': 'aya-train'}
  if key:
    headers['Authorization'] = f'Bearer {key}'

  def ask(body: bytes) -> Any:
    request = urllib.request.Request(url, data=body, headers=headers)
    with opener.open(request, timeout=TIMEOUT) as reply:
      return json.loads(reply.read())

  def rewards(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
    body = json.dumps({'prompts': list(prompts), 'answers': list(answers)}).encode()
    for left in reversed(range(_TRIES)):
      try:
        value = ask(body)
        break
      except (OSError, ValueError) as error:
        final = isinstance(error, urllib.error.HTTPError) and not (
          error.code == 429 or error.code >= 500
        )
        if final or not left:
          said = str(error).replace(key, '[key]') if key else str(error)
          raise RewardError(f'reward server {place} cannot be asked: {said}') from None
        time.sleep(2.0 ** (_TRIES - 1 - left))
    return checked(value.get('rewards') if isinstance(value, dict) else None, len(answers), place)

  return rewards
