"""What a judge says of single answers, such as that they refuse: `aya-train judge --rubric`."""

import collections
import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.judging import (
  answer_checks,
  judge_calls,
  judge_run,
  pairwise_judging,
  verdict_figures,
)
from aya_train.judging.judge_protocols import Protocol
from aya_train.judging.judge_run import Record, RunSettings, Unit
from aya_train.system_answers import Answer

logger = logging.getLogger(__name__)

RATINGS = 'ratings.jsonl'


@dataclasses.dataclass(frozen=True)
class RatingSettings:
  """How answers are rated.

  Attributes:
    system: whose answers they are.
    protocol: of one answer.
    language: of rows that name none.
    checks_language: whether answers in another language are flagged.
    request: keys that are added to each request.
    files: for the summary.
  """

  system: str
  protocol: Protocol
  language: str = ''
  checks_language: bool = True
  request: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  files: tuple[str, ...] = ()


def rate(answers: Sequence[Answer], settings: RatingSettings, run: RunSettings) -> dict[str, Any]:
  """Rates answers; returns the summary that is written. Raises as `judge_run.run`."""
  protocol = settings.protocol

  def summary(records: Sequence[Record]) -> Mapping[str, Any]:
    return {
      'system': settings.system,
      'judge': run.endpoint.model,
      'rubric': protocol.name,
      'files': list(settings.files),
      'figures': figures(records, protocol),
    }

  return judge_run.run(
    [_unit(answer, settings, run) for answer in answers],
    run,
    file=RATINGS,
    concluded=lambda record, reply: concluded(record, reply, protocol),
    is_settled=lambda record: record['label'] is not None,
    summary=summary,
  )


def _unit(answer: Answer, settings: RatingSettings, run: RunSettings) -> Unit:
  protocol = settings.protocol
  language = answer_checks.language_of(answer, settings.language)
  flags = ['markers'] if protocol.holds_label(answer.text) else []
  if settings.checks_language and answer_checks.is_in_other_language(answer.text, language):
    flags.append('language')
  record: Record = {
    'task': answer.task,
    'index': answer.index,
    'id': answer.id,
    'sample': answer.sample,
    'language': language,
    'inputs': answer.inputs,
    'system': settings.system,
    'answer': answer.text,
    'rubric': protocol.name,
    'label': None,
    'value': None,
    'by': 'judge',
    'annotator': run.endpoint.model,
    'problem': '',
    'flags': flags,
    'raw': '',
    'model': '',
    'usage': {},
  }
  if not answer.text.strip():
    record |= {'by': 'rule', 'annotator': '', 'problem': 'empty_answer'}
    return Unit({'key': _key(record, 'empty_answer'), **record})
  messages = protocol.messages(
    prompt=answer.inputs, answer=answer.text, language=language, reference=answer.reference
  )
  options = pairwise_judging.options(protocol, settings.request)
  call = judge_calls.call(run.endpoint, messages, options)
  return Unit({'key': _key(record, call.key), **record}, call)


def concluded(record: Record, reply: Mapping[str, Any], protocol: Protocol) -> Record:
  """A unit's record with what the judge said."""
  label = None if reply['problem'] else protocol.label(reply['text'])
  number = isinstance(label, int | float) and not isinstance(label, bool)
  return record | {
    'label': None if label is None else str(label),
    'value': label if number else None,
    'problem': reply['problem'] or ('nonsense' if label is None else ''),
    'flags': [*record['flags'], *(['cut'] if reply['finish'] == 'length' else [])],
    'raw': reply['text'],
    'model': reply['model'],
    'usage': dict(reply['usage']),
  }


def figures(records: Sequence[Mapping[str, Any]], protocol: Protocol) -> dict[str, Any]:
  """Shares of labels, the rate with its 95 % interval, the mean; of each language too."""
  found = _of(records, protocol)
  languages = sorted({r['language'] for r in records})
  if len(languages) > 1:
    found['languages'] = {
      language or 'unknown': _of([r for r in records if r['language'] == language], protocol)
      for language in languages
    }
  return found


def _of(records: Sequence[Mapping[str, Any]], protocol: Protocol) -> dict[str, Any]:
  rated = [r for r in records if r['label'] is not None]
  counts = collections.Counter(r['label'] for r in rated)
  problems = collections.Counter(r['problem'] for r in records if r['problem'])
  found: dict[str, Any] = {
    'answers': len(records),
    'rated': len(rated),
    'labels': dict(sorted(counts.items())),
    'problems': dict(sorted(problems.items())),
    'flags': verdict_figures.flag_counts(records),
  }
  if rated and protocol.positive:
    hits = sum(r['label'] in protocol.positive for r in rated)
    rate, low, high = verdict_figures.share(hits, len(rated))
    name = f'{"_".join(protocol.positive)}_rate'
    found |= {name: rate, f'{name}_low': low, f'{name}_high': high}
  values = [r['value'] for r in rated if r['value'] is not None]
  if values:
    found['mean'] = round(sum(values) / len(values), 4)
  return found


def _key(record: Mapping[str, Any], content: str) -> str:
  names = ('task', 'index', 'id', 'sample', 'system', 'rubric')
  text = '\0'.join([content, *(str(record[name]) for name in names)])
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:24]
