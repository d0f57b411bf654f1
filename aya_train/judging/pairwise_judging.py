"""Which of two systems' answers a judge prefers: `aya-train judge A B`.

A record of verdicts.jsonl is described in docs/judging.md; people's verdicts have the same keys.
"""

import dataclasses
import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.judging import (
  answer_checks,
  judge_calls,
  judge_protocols,
  judge_run,
  verdict_figures,
)
from aya_train.judging.judge_protocols import Protocol
from aya_train.judging.judge_run import Record, RunSettings, Unit
from aya_train.system_answers import Answer

logger = logging.getLogger(__name__)

VERDICTS = 'verdicts.jsonl'
AB, BA = 'ab', 'ba'
FLAG, LOSE, OFF = 'flag', 'lose', 'off'


@dataclasses.dataclass(frozen=True)
class PairSettings:
  """How pairs are judged.

  Attributes:
    names: of the two systems.
    protocol: what the judge is told.
    seed: of the orders.
    language: of rows that name none, '' for unknown.
    wrong_language: flag (and judge), lose (without a call), or off (not looked for).
    request: keys that are added to each request; None takes one out.
    files: for the summary.
  """

  names: tuple[str, str]
  protocol: Protocol
  seed: int = 0
  language: str = ''
  wrong_language: str = FLAG
  request: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  files: tuple[str, ...] = ()


def judge(
  pairs: Sequence[tuple[Answer, Answer]], settings: PairSettings, run: RunSettings
) -> dict[str, Any]:
  """Judges pairs; returns the summary that is written. Raises as `judge_run.run`."""
  listed = units(pairs, settings, run)
  ruled = sum(u.call is None for u in listed)
  flagged = verdict_figures.flag_counts([u.record for u in listed])
  said = ', '.join(f'{name} {count:,}' for name, count in flagged.items()) or 'none'
  logger.info('%d judgements, %d of them by rule; flags: %s', len(listed), ruled, said)

  def summary(records: Sequence[Record]) -> Mapping[str, Any]:
    return {
      'systems': list(settings.names),
      'judge': run.endpoint.model,
      'protocol': settings.protocol.name,
      'seed': settings.seed,
      'files': list(settings.files),
      'figures': verdict_figures.figures(records),
    }

  return judge_run.run(
    listed,
    run,
    file=VERDICTS,
    concluded=lambda record, reply: concluded(record, reply, settings.protocol),
    is_settled=lambda record: record['verdict'] is not None,
    summary=summary,
  )


def units(
  pairs: Sequence[tuple[Answer, Answer]], settings: PairSettings, run: RunSettings
) -> list[Unit]:
  """What is to be judged, a unit for each order."""
  found = []
  for a, b in pairs:
    for order in orders(a, settings.protocol, settings.seed):
      found.append(_unit(a, b, order, settings, run))
  return found


def orders(a: Answer, protocol: Protocol, seed: int) -> tuple[str, ...]:
  """In which order, or orders, a row is shown; drawn for each row by itself."""
  if protocol.orders == judge_protocols.BOTH:
    return (AB, BA)
  if protocol.orders == judge_protocols.FIXED:
    return (AB,)
  row = f'{seed}\0{a.task}\0{a.index if a.id is None else a.id}\0{a.sample}\0{a.inputs}'
  return (AB,) if random.Random(row).random() < 0.5 else (BA,)


def _unit(a: Answer, b: Answer, order: str, settings: PairSettings, run: RunSettings) -> Unit:
  protocol = settings.protocol
  language = answer_checks.language_of(a) or answer_checks.language_of(b, settings.language)
  flags = [
    f'markers_{side}' for side, answer in (('a', a), ('b', b)) if protocol.holds_label(answer.text)
  ]
  if settings.wrong_language != OFF:
    flags += [
      f'language_{side}'
      for side, answer in (('a', a), ('b', b))
      if answer_checks.is_in_other_language(answer.text, language)
    ]
  record: Record = {
    'task': a.task,
    'index': a.index,
    'id': a.id,
    'sample': a.sample,
    'language': language,
    'inputs': a.inputs,
    'system_a': settings.names[0],
    'system_b': settings.names[1],
    'answer_a': a.text,
    'answer_b': b.text,
    'order': order,
    'verdict': None,
    'by': 'judge',
    'annotator': run.endpoint.model,
    'protocol': protocol.name,
    'problem': '',
    'rule': '',
    'flags': flags,
    'raw': '',
    'model': '',
    'usage': {},
  }
  rule, verdict = ruled(a.text, b.text, flags, settings.wrong_language == LOSE)
  if rule:
    record |= {'verdict': verdict, 'by': 'rule', 'annotator': '', 'rule': rule}
    return Unit({'key': _key(record, rule), **record})
  first, second = (a.text, b.text) if order == AB else (b.text, a.text)
  messages = protocol.messages(
    prompt=a.inputs,
    answer_1=first,
    answer_2=second,
    language=language,
    reference=a.reference or b.reference,
  )
  call = judge_calls.call(run.endpoint, messages, options(protocol, settings.request))
  return Unit({'key': _key(record, call.key), **record}, call)


def options(protocol: Protocol, request: Mapping[str, Any]) -> dict[str, Any]:
  """Keys of a request beside model and messages."""
  found = {'temperature': protocol.temperature, 'max_tokens': protocol.max_tokens, **request}
  return {key: value for key, value in found.items() if value is not None}


def ruled(a: str, b: str, flags: Sequence[str], language_loses: bool) -> tuple[str, str]:
  """Which rule settles a pair without a call, and how; ('', '') for none."""
  a, b = a.strip(), b.strip()
  if a == b:
    return 'identical', 'A=B'
  if not a:
    return 'empty_a', 'B>A'
  if not b:
    return 'empty_b', 'A>B'
  if language_loses:
    wrong = [side for side in 'ab' if f'language_{side}' in flags]
    if wrong == ['a']:
      return 'language_a', 'B>A'
    if wrong == ['b']:
      return 'language_b', 'A>B'
  return '', ''


def concluded(record: Record, reply: Mapping[str, Any], protocol: Protocol) -> Record:
  """A unit's record with what the judge said."""
  label = None if reply['problem'] else protocol.label(reply['text'])
  flags = [*record['flags'], *(['cut'] if reply['finish'] == 'length' else [])]
  return record | {
    'verdict': None if label is None else verdict_of(str(label), record['order']),
    'problem': reply['problem'] or ('nonsense' if label is None else ''),
    'flags': flags,
    'raw': reply['text'],
    'model': reply['model'],
    'usage': dict(reply['usage']),
  }


def verdict_of(place: str, order: str) -> str:
  """'1>2', which is about places, as 'A>B' or 'B>A', which is about systems."""
  names = {'1': 'A', '2': 'B'} if order == AB else {'1': 'B', '2': 'A'}
  found = f'{names[place[0]]}{place[1:-1]}{names[place[-1]]}'
  return 'A=B' if '=' in found else found


def _key(record: Mapping[str, Any], content: str) -> str:
  """Of a record: of its row and of what it depends on."""
  names = ('task', 'index', 'id', 'sample', 'order', 'system_a', 'system_b')
  text = '\0'.join([content, *(str(record[name]) for name in names)])
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:24]
