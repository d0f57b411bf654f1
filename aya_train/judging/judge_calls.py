"""Many calls of one endpoint: what they will cost, made side by side, kept, and never repeated."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aya_train.judging import chat_endpoint, endpoint_address, reply_log, wait_times
from aya_train.judging.chat_endpoint import ChatEndpoint
from aya_train.judging.endpoint_address import EndpointError

logger = logging.getLogger(__name__)

REPLIES = 'replies.jsonl'
KEPT = {'text': str, 'problem': str, 'model': str, 'finish': str, 'usage': dict}
"""What a kept reply holds beside its key."""

_SAY_EVERY = 15.0
_NOT_KEPT = ('failed', 'empty')  # asked again by the next run


class CostLimitError(ValueError):
  """The run would cost, or has cost, more than it may."""


@dataclasses.dataclass(frozen=True)
class Call:
  """One conversation to be continued by the endpoint.

  Attributes:
    key: hash of all that the reply depends on.
    messages: role and content of each.
    options: further keys of the request.
  """

  key: str
  messages: Sequence[Mapping[str, str]]
  options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Prices:
  """What tokens cost, by million; None where the user does not say.

  Attributes:
    prompt, completion: of the currency of the user's.
    limit: most that a run may cost.
    reply_tokens: expected of a reply, for the estimate.
  """

  prompt: float | None = None
  completion: float | None = None
  limit: float | None = None
  reply_tokens: int = 300

  @property
  def known(self) -> bool:
    return self.prompt is not None and self.completion is not None

  def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
    """Of so many tokens; 0 where prices are not known."""
    return (
      prompt_tokens * (self.prompt or 0.0) + completion_tokens * (self.completion or 0.0)
    ) / 1e6


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Of calls before they are made; see `estimate`."""

  calls: int
  kept: int
  prompt_tokens: int
  completion_tokens: int
  cost: float | None

  def __str__(self) -> str:
    cost = '' if self.cost is None else f', about {self.cost:,.2f} at the prices given'
    kept = f' ({self.kept:,} more are answered already)' if self.kept else ''
    return (
      f'{self.calls:,} calls{kept}: about {self.prompt_tokens:,} tokens in and '
      f'{self.completion_tokens:,} out{cost}'
    )


def call(
  settings: chat_endpoint.EndpointSettings,
  messages: Sequence[Mapping[str, str]],
  options: Mapping[str, Any],
) -> Call:
  """A call with the hash of its content: address, model, messages and options."""
  content = [
    endpoint_address.shown(settings.base_url),
    settings.model,
    list(messages),
    dict(options),
  ]
  text = json.dumps(content, sort_keys=True, ensure_ascii=True)
  return Call(hashlib.sha256(text.encode()).hexdigest()[:32], messages, options)


def estimated_tokens(text: str) -> int:
  """About how many tokens a judge's vocabulary makes of a text, without having it.

  A rule of thumb: a quarter of a token for a character of ASCII, two thirds for one of the other
  Latin letters, one for all else. By AfriTeVa's 150,000 pieces it is within a quarter of the truth
  for answers in English, French, Portuguese, Swahili, Hausa and Igbo, too high by half for Yoruba
  and twofold for Arabic; where a vocabulary spells a script in bytes it is too low.
  """
  ascii_count = sum(c < '\x80' for c in text)
  latin = sum('\x80' <= c < '\u0250' for c in text)
  return -(-ascii_count // 4) + -(-2 * latin // 3) + len(text) - ascii_count - latin


def _prompt_tokens(call: Call) -> int:
  return sum(estimated_tokens(m['content']) + 4 for m in call.messages) + 3


def estimate(calls: Sequence[Call], replies: reply_log.Replies, prices: Prices) -> Estimate:
  """What calls will take, without those that are answered already; each content counts once."""
  unique = {c.key: c for c in calls}
  open_calls = [c for key, c in unique.items() if replies.get(key) is None]
  tokens = sum(map(_prompt_tokens, open_calls))
  out = sum(
    min(prices.reply_tokens, c.options.get('max_tokens') or prices.reply_tokens) for c in open_calls
  )
  cost = prices.cost(tokens, out) if prices.known else None
  return Estimate(len(open_calls), len(unique) - len(open_calls), tokens, out, cost)


def check(found: Estimate, prices: Prices) -> None:
  """Raises CostLimitError if an estimate is over the limit, or a limit has no prices."""
  if prices.limit is None:
    return
  if found.cost is None:
    raise CostLimitError('--max_cost needs --price_in and --price_out, by million tokens')
  if found.cost > prices.limit:
    raise CostLimitError(
      f'{found}; that is over --max_cost {prices.limit:g}: raise it, or judge fewer --rows'
    )


async def run(
  calls: Sequence[Call],
  endpoint: ChatEndpoint,
  replies: reply_log.Replies,
  on_reply: Callable[[Call, Mapping[str, Any]], None],
  prices: Prices,
) -> None:
  """Makes the calls that are not answered yet, and tells of each reply as soon as it is kept.

  Equal calls are made once. When something stops the run, requests that are under way are let end,
  since they are paid for.

  Args:
    calls: to be made.
    endpoint: to be asked.
    replies: where replies are kept.
    on_reply: gets each call, and the record of its reply: key, text, problem, model, finish, usage.
    prices: for the limit.

  Raises:
    EndpointError, CostLimitError: why it stopped.
  """
  waiting: dict[str, list[Call]] = {}
  for one in calls:
    if (known := replies.get(one.key)) is not None:
      on_reply(one, known)
    else:
      waiting.setdefault(one.key, []).append(one)
  progress = _Progress(len(waiting), endpoint, prices)
  queue = list(reversed(waiting.values()))

  async def make(same: Sequence[Call]) -> None:
    progress.check()
    reply = await endpoint.ask(same[0].messages, same[0].options)
    _guess_usage(same[0], reply, endpoint.tally)
    record = {'key': same[0].key, **dataclasses.asdict(reply)}
    if reply.problem not in _NOT_KEPT:
      replies.add(record)
    for one in same:
      on_reply(one, record)
    progress.one_more()

  await _at_once(queue, make, endpoint.settings.concurrency)
  progress.say(force=bool(waiting))


async def at_once(
  items: Sequence[Any], work: Callable[[Any], Awaitable[None]], concurrency: int
) -> None:
  """Works on items, in their order, several at a time; the first error is raised at the end."""
  await _at_once(list(reversed(items)), work, concurrency)


async def _at_once(
  queue: list[Any], work: Callable[[Any], Awaitable[None]], concurrency: int
) -> None:
  stopped = asyncio.Event()
  errors: list[Exception] = []

  async def worker() -> None:
    while queue and not errors:
      try:
        await work(queue.pop())
      except Exception as error:
        errors.append(error)
        stopped.set()

  workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(queue)))]
  if not workers:
    return
  everything = asyncio.gather(*workers)
  stop = asyncio.create_task(stopped.wait())
  try:
    waited: set[asyncio.Future[Any]] = {everything, stop}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if errors:
      # Replies under way come; what only waits for a server that is away does not end by itself.
      await asyncio.wait(workers, timeout=_GRACE)
  finally:
    for task in (*workers, stop):
      task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
      await everything
  if errors:
    raise errors[0]


_GRACE = 20.0  # seconds for replies that are under way when a run stops


class _Progress:
  """Tells how far a run is, and stops it where it has cost what it may."""

  def __init__(self, total: int, endpoint: ChatEndpoint, prices: Prices):
    self._total, self._endpoint, self._prices = total, endpoint, prices
    self._done = 0
    self._began = self._said = time.monotonic()

  def check(self) -> None:
    limit, spent = self._prices.limit, self._spent()
    if limit is not None and spent >= limit:
      raise CostLimitError(
        f'{spent:.2f} were spent of --max_cost {limit:g} after {self._done:,} of {self._total:,} '
        'calls. What was answered is kept; with a higher limit the same command goes on there'
      )

  def one_more(self) -> None:
    self._done += 1
    self.say()

  def say(self, force: bool = False) -> None:
    now = time.monotonic()
    if not force and now - self._said < _SAY_EVERY:
      return
    self._said = now
    rate = self._done / max(now - self._began, 1e-3)
    left = (self._total - self._done) / rate if rate else 0.0
    cost = f', {self._spent():.2f} spent' if self._prices.known else ''
    logger.info(
      '%d of %d calls, %.1f a second, %s left%s',
      *(self._done, self._total, rate, wait_times.words(left), cost),
    )

  def _spent(self) -> float:
    return cost_of(self._endpoint.tally, self._prices)


def _guess_usage(call: Call, reply: chat_endpoint.Reply, tally: chat_endpoint.Tally) -> None:
  """Counts what a reply does not say, so that a limit of cost holds there too."""
  if reply.problem == 'failed':
    return
  if 'prompt_tokens' not in reply.usage:
    tally.guessed_prompt_tokens += _prompt_tokens(call)
  if 'completion_tokens' not in reply.usage:
    tally.guessed_completion_tokens += estimated_tokens(reply.text)


def cost_of(tally: chat_endpoint.Tally, prices: Prices) -> float:
  """What a run took, by what replies say, else by estimate; 0 where prices are not known."""
  return prices.cost(
    tally.prompt_tokens + tally.guessed_prompt_tokens,
    tally.completion_tokens + tally.guessed_completion_tokens,
  )


def spent(tally: chat_endpoint.Tally, prices: Prices) -> dict[str, Any]:
  """What a run took, for its summary."""
  found = dataclasses.asdict(tally)
  found['waited'] = round(tally.waited, 1)
  if prices.known:
    found['cost'] = round(cost_of(tally, prices), 6)
  return found


def with_endpoint(
  settings: chat_endpoint.EndpointSettings, work: Callable[[ChatEndpoint], Awaitable[None]]
) -> chat_endpoint.Tally:
  """Runs an event loop with an endpoint in it; returns what was asked, also through an error."""
  if settings.concurrency < 1 or settings.attempts < 1 or settings.timeout <= 0:
    raise EndpointError('concurrency, attempts and timeout must be above 0')
  endpoint_address.check_address(settings.base_url)
  holder: list[ChatEndpoint] = []

  async def main() -> None:
    endpoint = ChatEndpoint(settings)
    holder.append(endpoint)
    try:
      await work(endpoint)
    finally:
      await endpoint.close()

  asyncio.run(main())
  return holder[0].tally
