"""One endpoint that speaks OpenAI's chat API: asks, waits, asks again, and counts what it costs.

The key comes from an environment variable. It is in no message, no file and no log: where a server
sends it back, it is taken out. The client's own repeats are off, so each request is counted once.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aya_train.judging import endpoint_address, reply_stream, wait_times
from aya_train.judging.endpoint_address import EndpointError

logger = logging.getLogger(__name__)

OFFICIAL = 'https://api.openai.com/v1'
_NO_KEY = 'none'
_TRIES_LATER = (408, 409, 425, 429)
_OF_THE_ROW = (400, 413, 422, 451)
_LONGEST_WAIT = 60.0
_SAY_EVERY = 60.0
_LONGEST_MESSAGE = 300
_MOST_REFUSED = 3  # requests, of which none was answered, before it is the settings' fault
_TOO_LARGE = 'request too large'
_PROBE = 'Answer with the word yes.'
_MOST_TOKENS = 10**8  # of one reply; a server that says more says nonsense


class _PassingError(Exception):
  """A failure that may be gone in a moment.

  Attributes:
    wait: seconds that the server asks for, None where it says nothing.
    limited: whether there were only too many requests.
  """

  def __init__(self, said: str, *, wait: float | None = None, limited: bool = False):
    super().__init__(said)
    self.wait, self.limited = wait, limited


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
  """Where and how to ask.

  Attributes:
    model: as the endpoint calls it.
    base_url: up to and with `/v1`.
    key_env: environment variable of the key.
    timeout: seconds for a whole reply, also one that comes drop by drop.
    attempts: failures of one request, while the endpoint answers others, before it is given up.
    patience: seconds without any answer after which the run stops.
    concurrency: requests at a time.
    first_wait: seconds after a first failure; later ones are longer, up to a minute.
    requests_per_minute: None for no limit of ours.
  """

  model: str
  base_url: str = OFFICIAL
  key_env: str = 'OPENAI_API_KEY'
  timeout: float = 120.0
  attempts: int = 6
  patience: float = 7200.0
  concurrency: int = 8
  first_wait: float = 1.0
  requests_per_minute: float | None = None


@dataclasses.dataclass(frozen=True)
class Reply:
  """What came back.

  Attributes:
    text: of the assistant, '' where there is none.
    problem: '' or why there is no text: empty, refused, filtered, failed.
    model: that the reply names.
    finish: why it ended.
    usage: prompt_tokens and completion_tokens; {} where the reply does not say.
  """

  text: str
  problem: str = ''
  model: str = ''
  finish: str = ''
  usage: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tally:
  """What a run asked and got.

  Attributes:
    requests: sent, with those that failed.
    answered: replies that came.
    prompt_tokens, completion_tokens: as the replies say.
    without_usage: replies that do not say.
    guessed_prompt_tokens, guessed_completion_tokens: an estimate of what those took.
    failures: requests without a reply, by what happened.
    waited: seconds for which nothing answered.
    models: how often replies named a model.
  """

  requests: int = 0
  answered: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0
  without_usage: int = 0
  guessed_prompt_tokens: int = 0
  guessed_completion_tokens: int = 0
  failures: dict[str, int] = dataclasses.field(default_factory=dict)
  waited: float = 0.0
  models: dict[str, int] = dataclasses.field(default_factory=dict)


class ChatEndpoint:
  """Asks one endpoint; to be used inside of one running event loop, and closed."""

  def __init__(
    self,
    settings: EndpointSettings,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Opens nothing yet.

    Raises:
      EndpointError: no key for the official endpoint, or an address that is none.
      ImportError: the library is missing.
    """
    import openai

    self._openai = openai
    self.settings = settings
    self.tally = Tally()
    self._sleep, self._clock = sleep, clock
    self._key = os.environ.get(settings.key_env, '').strip()
    self.place = endpoint_address.shown(settings.base_url)
    if not self._key and self.place.startswith('https://api.openai.com'):
      raise EndpointError(
        f'{self.place} needs a key: put it into the environment variable {settings.key_env} '
        '(--key_env names another), never into a file or an argument'
      )
    try:
      self._key.encode('ascii')
    except UnicodeEncodeError:
      raise EndpointError(f'the key in {settings.key_env} has signs that no key has') from None
    # A redirect would send texts and key to a place that nobody named.
    http = openai.DefaultAsyncHttpxClient(follow_redirects=False)
    self._client = openai.AsyncOpenAI(
      api_key=self._key or _NO_KEY,
      base_url=settings.base_url,
      max_retries=0,
      timeout=settings.timeout,
      http_client=http,
    )
    self._down_since: float | None = None
    self._open_at = clock()  # nobody asks before
    self._next_turn = clock()
    self._said_at = -_SAY_EVERY
    self._in_a_row = 0
    self._refused = 0

  async def close(self) -> None:
    """Closes the connections."""
    with contextlib.suppress(Exception):
      await self._client.close()

  async def ask(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Reply:
    """A reply to one conversation, however long it takes within the patience.

    Args:
      messages: role and content of each.
      options: further keys of the request: temperature, max_tokens ...

    Raises:
      EndpointError: nothing can be had here, or nothing was answered for `patience` seconds.
    """
    return await self._patiently(
      lambda: self._once(messages, options),
      lambda: self._once([{'role': 'user', 'content': _PROBE}], options),
    )

  async def moderate(self, text: str) -> Mapping[str, Any]:
    """The first result of the moderation endpoint for a text; raises as `ask`."""

    async def once(text: str) -> Any:
      request = {'model': self.settings.model, 'input': text}
      value = await self._sent(lambda: self._raw('/moderations', request))
      if isinstance(value, Reply):
        return value
      results = value.get('results')
      if not isinstance(results, list) or not results or not isinstance(results[0], dict):
        raise self._no_answer(value, 'results')
      self.tally.answered += 1
      return results[0]

    found = await self._patiently(lambda: once(text), lambda: once(_PROBE))
    return found if isinstance(found, dict) else {'problem': found.problem, 'said': found.text}

  # Patience ---------------------------------------------------------------------------------------

  async def _patiently(
    self, once: Callable[[], Awaitable[Any]], probe: Callable[[], Awaitable[Any]]
  ) -> Any:
    own, is_up = 0, False
    while True:
      await self._turn()
      try:
        found = await once()
      except _PassingError as error:
        self._failed(error)
        own += not error.limited
        if is_up and not error.limited:
          return Reply(f'{error}, {own} times', 'failed')
        if own >= self.settings.attempts:
          # Answers to others prove nothing: they may be of before it went down. If it answers now,
          # it may have come back this moment: the row is asked once more.
          is_up = await self._is_up(probe)
          if is_up:
            continue
          own = 0
        await self._wait(error, own)
      else:
        self._succeeded()
        return found

  async def _is_up(self, probe: Callable[[], Awaitable[Any]]) -> bool:
    """Whether the endpoint answers something else, so that a failure is of one row."""
    with contextlib.suppress(_PassingError):
      await probe()
      self._succeeded()
      return True
    return False

  async def _turn(self) -> None:
    """Waits until asking makes sense, and for the limit of requests a minute."""
    while (left := self._open_at - self._clock()) > 0:
      await self._sleep(left)
    if self.settings.requests_per_minute:
      now = self._clock()
      mine = max(self._next_turn, now)
      self._next_turn = mine + 60.0 / self.settings.requests_per_minute
      if mine > now:
        await self._sleep(mine - now)

  async def _wait(self, error: _PassingError, own: int) -> None:
    now = self._clock()
    down = now - (now if self._down_since is None else self._down_since)
    seconds = error.wait
    # Less than a first wait of ours is no wait: a server that says 0 for an hour would be flooded.
    if seconds is None or seconds < self.settings.first_wait:
      grown = max(self.settings.first_wait * 2.0 ** min(max(own - 1, 0), 10), down / 2)
      seconds = min(_LONGEST_WAIT, grown) * random.uniform(0.5, 1.0)
    if down + (error.wait or 0.0) > self.settings.patience:
      asks = f', which asks to wait {wait_times.words(error.wait)} more' if error.wait else ''
      raise EndpointError(
        f'{self.place} has answered nothing for {wait_times.words(down)}{asks} (last: {error}). '
        'What was answered before is kept; the same command goes on there. --patience waits longer'
      )
    # Others wait too where nothing answers, or where the server asks for it.
    if error.wait is not None or error.limited or self._in_a_row > self.settings.concurrency:
      self._open_at = max(self._open_at, now + seconds)
    if self._in_a_row > 2 and now - self._said_at >= _SAY_EVERY:
      self._said_at = now
      logger.warning(
        '%s has not answered for %s (%s): trying again in %s, for up to %s',
        self.place,
        wait_times.words(down),
        error,
        wait_times.words(seconds),
        wait_times.words(self.settings.patience),
      )
    await self._sleep(seconds)

  def _failed(self, error: _PassingError) -> None:
    kind = str(error).partition(':')[0]
    self.tally.failures[kind] = self.tally.failures.get(kind, 0) + 1
    self._in_a_row += 1
    if self._down_since is None:
      self._down_since = self._clock()

  def _succeeded(self) -> None:
    now = self._clock()
    if self._down_since is not None and self._in_a_row > 2:
      self.tally.waited += now - self._down_since
      if self._said_at >= self._down_since:
        logger.info(
          '%s answers again after %s', self.place, wait_times.words(now - self._down_since)
        )
    self._down_since, self._in_a_row = None, 0
    self._said_at = -_SAY_EVERY

  # One request ------------------------------------------------------------------------------------

  async def _once(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> Reply:
    request = {'model': self.settings.model, 'messages': list(messages), **options}
    sent = await self._sent(lambda: self._raw('/chat/completions', request))
    if isinstance(sent, Reply):
      return sent
    choices = sent.get('choices')
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get('message') if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
      raise self._no_answer(sent, 'choices')
    if choice.get('error') or choice.get('finish_reason') == 'error':
      raise self._no_answer({'error': choice.get('error') or 'finish_reason error'}, 'choices')
    self.tally.answered += 1
    usage = self._count_usage(sent)
    named = sent.get('model')
    model = self.redacted(named) if isinstance(named, str) else ''
    self.tally.models[model] = self.tally.models.get(model, 0) + 1
    text = message.get('content')
    if isinstance(text, list):  # parts
      text = ''.join(str(p.get('text', '')) for p in text if isinstance(p, dict))
    text = self.redacted(text) if isinstance(text, str) else ''
    finish = str(choice.get('finish_reason') or '')
    problem = ''
    if finish == 'content_filter':
      problem = 'filtered'
    elif message.get('refusal'):
      problem, text = 'refused', text or self.redacted(str(message['refusal']))
    elif not text.strip():
      problem = 'empty'
    return Reply(text, problem, model, finish, usage)

  def _no_answer(self, sent: Mapping[str, Any], lacks: str) -> _PassingError:
    """What a body of status 200 that answers nothing means: the endpoint is as good as away."""
    if sent.get('error'):
      return _PassingError(f'an error in place of a reply: {self._brief(sent["error"])}')
    return _PassingError(f'a reply without {lacks}: {self._brief(json.dumps(sent))}')

  def _count_usage(self, sent: Mapping[str, Any]) -> dict[str, int]:
    said = sent.get('usage')
    keys = ('prompt_tokens', 'completion_tokens')
    told = said if isinstance(said, dict) else {}
    found = {k: count for k in keys if (count := _token_count(told.get(k))) is not None}
    self.tally.without_usage += len(found) < len(keys)
    self.tally.prompt_tokens += found.get('prompt_tokens', 0)
    self.tally.completion_tokens += found.get('completion_tokens', 0)
    return found

  async def _raw(self, path: str, request: Mapping[str, Any]) -> bytes:
    """The body of the reply: as bytes, since no field of it can be relied upon."""
    create = (
      self._client.chat.completions if path == '/chat/completions' else self._client.moderations
    ).with_raw_response.create
    known = {k: request[k] for k in ('model', 'messages', 'input') if k in request}
    body = {k: v for k, v in request.items() if k not in known}
    raw = await create(**known, extra_body=body or None)
    return bytes(raw.http_response.content)

  async def _sent(self, send: Callable[[], Awaitable[bytes]]) -> Any:
    """The JSON object of a reply, or a `Reply` that says why this row has none.

    Raises:
      _PassingError, EndpointError.
    """
    openai = self._openai
    self.tally.requests += 1
    try:
      async with asyncio.timeout(self.settings.timeout):
        content = await send()
    except (TimeoutError, openai.APITimeoutError):
      raise _PassingError(f'no whole reply in {wait_times.words(self.settings.timeout)}') from None
    except openai.APIStatusError as error:
      return self._refusal(error)
    except openai.APIConnectionError as error:
      cause = error.__cause__ or error
      said = self._brief(str(cause) or type(cause).__name__)
      if self.tally.answered == 0 and (advice := endpoint_address.tls_advice(error)):
        raise EndpointError(f'{self.place} cannot be spoken to by TLS ({said}): {advice}') from None
      raise _PassingError(f'no connection: {said}') from None
    except UnicodeEncodeError:
      return Reply('the text cannot be sent as UTF-8', 'failed')
    try:
      value = reply_stream.joined(content)
      value = json.loads(content) if value is None else value
    except (ValueError, RecursionError):
      raise _PassingError(f'a reply that is no JSON: {self._brief(content)}') from None
    if not isinstance(value, dict):
      raise _PassingError(f'a reply that is no JSON object: {self._brief(content)}')
    return value

  def _refusal(self, error: Any) -> Reply:
    """What a status other than success means; raises unless it is of this row alone."""
    status, said = error.status_code, self._said(error)
    if 300 <= status < 400:
      target = endpoint_address.shown(error.response.headers.get('location', ''))
      raise EndpointError(
        f'{self.place} redirects to {target or "another address"}, and texts are sent only where '
        'you say: give the right --base_url'
      ) from None
    if status == 429 and 'insufficient_quota' in said:
      raise EndpointError(f'{self.place}: the quota of this key is used up ({said})') from None
    if status == 429 and _TOO_LARGE in said.casefold():  # this row alone is over the limit
      return Reply(f'status {status}: {said}', 'failed')
    if status == 403 and _is_moderated(error.body):
      self.tally.answered += 1
      return Reply(said, 'filtered')
    if status in _TRIES_LATER or status >= 500:
      raise _PassingError(
        f'status {status}: {said}',
        wait=wait_times.asked_for(error.response.headers),
        limited=status == 429,
      ) from None
    if status in _OF_THE_ROW:
      if 'content_filter' in said or 'content management' in said or status == 451:
        self.tally.answered += 1
        return Reply(said, 'filtered')
      self._refused += 1
      if self.tally.answered == 0 and self._refused >= _MOST_REFUSED:
        raise EndpointError(
          f'{self.place} refused the first {self._refused} requests, status {status}: {said}. '
          '--request \'{"NAME": VALUE}\' changes what is sent (null takes a key out)'
        ) from None
      return Reply(f'status {status}: {said}', 'failed')
    what = {
      401: 'the key',
      403: 'the key',
      404: 'the model or the address',
    }
    wrong = what.get(status, 'the request')
    key = f'{self.settings.key_env} is {"set" if self._key else "not set"}'
    raise EndpointError(
      f'{self.place} does not take {wrong}, status {status}: {said} (model '
      f'{self.settings.model!r}; {key})'
    ) from None

  def _said(self, error: Any) -> str:
    """Code and message of an error's body."""
    body = error.body if isinstance(error.body, dict) else {}
    body = body['error'] if isinstance(body.get('error'), dict) else body
    found = ' '.join(str(body[k]) for k in ('code', 'message') if body.get(k))
    return self._brief(found or error.response.text or 'without a word')

  def _brief(self, said: Any) -> str:
    """A server's words on one line, without the key."""
    text = said.decode('utf-8', 'replace') if isinstance(said, bytes) else str(said)
    text = ' '.join(self.redacted(text).split())
    return text if len(text) <= _LONGEST_MESSAGE else f'{text[:_LONGEST_MESSAGE]} ...'

  def redacted(self, text: str) -> str:
    """A text without the key, whatever a server has put into it."""
    text = text.encode('utf-8', 'replace').decode()
    return text.replace(self._key, '[key]') if len(self._key) > 3 else text


def _is_moderated(body: Any) -> bool:
  """Whether an error says that a gateway's moderation flagged the texts, rather than the key."""
  error = body.get('error', body) if isinstance(body, dict) else None
  about = error.get('metadata') if isinstance(error, dict) else None
  return isinstance(about, dict) and bool(about.get('reasons'))


def _token_count(value: Any) -> int | None:
  """A number of tokens, as a whole number or a float that is one; None for what can be none."""
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  known = isinstance(value, int) and not isinstance(value, bool)
  return value if known and 0 <= value <= _MOST_TOKENS else None
