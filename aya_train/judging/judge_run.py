"""A run of an endpoint over rows: the estimate, the calls, a record a row, and what it came to."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import destinations
from aya_train.judging import chat_endpoint, judge_calls, reply_log
from aya_train.judging.judge_calls import Call, Prices

logger = logging.getLogger(__name__)

SUMMARY = 'summary.json'
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Unit:
  """What becomes one record.

  Attributes:
    record: what is known before the call; all of it, where there is no call.
    call: to be made; None where the record needs none.
  """

  record: Record
  call: Call | None = None


@dataclasses.dataclass(frozen=True)
class RunSettings:
  """Where a run writes, and what it may do.

  Attributes:
    output: folder of the records, the kept replies and the summary.
    cache: file of kept replies, None for the one in `output`.
    endpoint, prices: see there.
    dry_run: stop after the estimate.
    ask_again: replies that gave no verdict are asked for anew.
  """

  output: str
  endpoint: chat_endpoint.EndpointSettings
  prices: Prices = dataclasses.field(default_factory=Prices)
  cache: str | None = None
  dry_run: bool = False
  ask_again: bool = False


def run(
  units: Sequence[Unit],
  settings: RunSettings,
  *,
  file: str,
  concluded: Callable[[Record, Mapping[str, Any]], Record],
  is_settled: Callable[[Record], bool],
  summary: Callable[[Sequence[Record]], Mapping[str, Any]],
) -> dict[str, Any]:
  """Makes records of units, in a file that a kill costs a line at most, and sums them up.

  Args:
    units: to be judged.
    settings: see there.
    file: name of the file of records.
    concluded: a unit's record and the record of its reply (judge_calls.run) -> the full record.
    is_settled: whether a record has what was asked for.
    summary: figures of records, written with what the run took.

  Returns:
    What is written as summary.json.

  Raises:
    EndpointError, CostLimitError: why it stopped; what was answered is kept.
    OSError: `output` cannot be written, or another process writes there.
  """
  folder = epath.Path(settings.output)
  destinations.check_folder(folder, '--output')
  found: dict[int, Record] = {i: u.record for i, u in enumerate(units) if u.call is None}
  calls = {i: u.call for i, u in enumerate(units) if u.call is not None}
  replies = reply_log.Replies(settings.cache or folder / judge_calls.REPLIES, judge_calls.KEPT)
  tally = chat_endpoint.Tally()
  complete = False
  with contextlib.closing(replies):
    for i, call in calls.items():
      if (reply := replies.get(call.key)) is not None:
        found[i] = concluded(units[i].record, reply)
        if settings.ask_again and not is_settled(found[i]):
          replies.forget(call.key)
          del found[i]
    estimate = judge_calls.estimate(list(calls.values()), replies, settings.prices)
    logger.info('%s', estimate)
    judge_calls.check(estimate, settings.prices)
    about: dict[str, Any] = {'estimate': dataclasses.asdict(estimate)}
    if settings.dry_run:
      return about
    records = folder / file
    reply_log.write_whole(records, (found[i] for i in sorted(found)))
    growing = reply_log.GrowingFile(records)
    by_key: dict[str, list[int]] = {}
    for i, call in calls.items():
      if i not in found:
        by_key.setdefault(call.key, []).append(i)

    def on_reply(call: Call, reply: Mapping[str, Any]) -> None:
      for i in by_key.pop(call.key, ()):
        found[i] = concluded(units[i].record, reply)
        growing.append(found[i])

    async def work(endpoint: chat_endpoint.ChatEndpoint) -> None:
      nonlocal tally
      tally = endpoint.tally
      pending = [calls[indices[0]] for indices in by_key.values()]
      await judge_calls.run(pending, endpoint, replies, on_reply, settings.prices)

    try:
      if by_key:
        judge_calls.with_endpoint(settings.endpoint, work)
      complete = True
    finally:
      growing.close()
      ordered = [found[i] for i in sorted(found)]
      reply_log.write_whole(records, ordered)
      about = {
        **summary(ordered),
        'complete': complete,
        'not_yet': len(units) - len(ordered),
        **about,
        'spent': judge_calls.spent(tally, settings.prices),
      }
      content = json.dumps(about, ensure_ascii=False, indent=1) + '\n'
      reply_log.replace(folder / SUMMARY, content.encode('utf-8', 'replace'))
    _warn_of_models(tally, settings.endpoint.model)
  return about


def _warn_of_models(tally: chat_endpoint.Tally, asked: str) -> None:
  others = {name: n for name, n in tally.models.items() if not is_model(name, asked)}
  if others:
    said = ', '.join(f'{name or "no model"!r} {n:,} times' for name, n in others.items())
    logger.warning(
      'asked for the model %r, replies name %s: is it the judge you meant?', asked, said
    )


def is_model(named: str, asked: str) -> bool:
  """Whether a reply's model is the one that was asked for, or a dated version of it."""
  named, asked = (name.rpartition('/')[2].casefold() for name in (named, asked))
  return not named or named == asked or named.startswith((f'{asked}-', f'{asked}:', f'{asked}@'))
