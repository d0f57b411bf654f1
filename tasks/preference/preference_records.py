"""Which of two answers was preferred, from the records of each form of release.

A dialogue before the answer becomes one prompt: a single message is the prompt itself; of several
each has its speaker's name before it, and messages are separated by a blank line.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aya_train.tasks.building import text_files
from aya_train.tasks.building.read_report import RowProblemError


class Comparison(NamedTuple):
  """A prompt and its answers; one that was judged alone leaves the other place empty.

  Attributes:
    inputs: prompt.
    chosen, rejected: answers; '' where there is none.
  """

  inputs: str
  chosen: str
  rejected: str


Reader = Callable[[Mapping[str, Any]], Iterator[Comparison]]

USER, ASSISTANT = 'User', 'Assistant'
_PROMPT = ('prompt', 'inputs', 'instruction', 'question')
_ANSWER = ('answer', 'completion', 'response')
_SPEAKERS = {
  'human': USER,
  'user': USER,
  'prompter': USER,
  'assistant': ASSISTANT,
  'gpt': ASSISTANT,
  'model': ASSISTANT,
}
_TURN = re.compile(r'(?:^|\n\n)(Human|Assistant):')
_GOOD, _BAD = ('1', '1.0', 'true', 'yes', 'good', '+1'), ('0', '0.0', 'false', 'no', 'bad', '-1')


def dialogue(messages: Sequence[tuple[str, str]]) -> str:
  """One prompt of messages, each a speaker (USER, ASSISTANT or another name) and a text."""
  if len(messages) == 1:
    return messages[0][1]
  return '\n\n'.join(f'{speaker}: {text}' for speaker, text in messages)


def of_table(record: Mapping[str, Any]) -> Iterator[Comparison]:
  """Of a user's columns: prompt, chosen, rejected; or prompt, answer, label.

  The answers may be lists of messages ({'role', 'content'}), as TRL has them; what they share is
  then the prompt, if there is none. The label is true or false, yes or no, 1 or 0, +1 or -1, good
  or bad.

  Raises:
    RowProblemError: wrong_columns, empty_inputs, empty_targets, equal_answers.
  """
  prompt = next((record[name] for name in _PROMPT if record.get(name) is not None), None)
  if isinstance(prompt, list):
    prompt = dialogue(_messages(prompt, 'prompt'))
  if 'chosen' in record and 'rejected' in record:
    answers = record['chosen'], record['rejected']
    if all(isinstance(x, list) for x in answers):
      yield _of_messages(*answers, prompt)
      return
    yield _checked(prompt, *answers)
    return
  answer = next((record[name] for name in _ANSWER if record.get(name) is not None), None)
  if answer is None or 'label' not in record:
    raise RowProblemError(
      'wrong_columns',
      f'expected prompt, chosen and rejected, or prompt, answer and label, got {sorted(record)}',
    )
  yield _judged_alone(prompt, answer, record['label'])


def _judged_alone(prompt: Any, answer: Any, label: Any) -> Comparison:
  said = str(label).strip().lower()
  if said not in (*_GOOD, *_BAD):
    raise RowProblemError('wrong_columns', f'label {label!r} is none of {[*_GOOD, *_BAD]}')
  if isinstance(answer, list):
    before, answer = _answered(answer, 'answer')
    prompt = dialogue(before) if before else prompt
  inputs, answer = _text(prompt, 'prompt'), _text(answer, 'answer')
  return Comparison(inputs, answer, '') if said in _GOOD else Comparison(inputs, '', answer)


def _of_messages(chosen: Sequence[Any], rejected: Sequence[Any], prompt: Any) -> Comparison:
  (before, one), (before_other, other) = (
    _answered(chosen, 'chosen'),
    _answered(rejected, 'rejected'),
  )
  if before != before_other:
    raise RowProblemError('bad_tree', 'chosen and rejected differ before the last message')
  return _checked(dialogue(before) if before else prompt, one, other)


def _answered(messages: Sequence[Any], name: str) -> tuple[list[tuple[str, str]], str]:
  """The turns before the answer, and the answer, which is the assistant's."""
  *before, (speaker, answer) = _messages(messages, name)
  if speaker != ASSISTANT:
    raise RowProblemError(
      'bad_tree', f'{name} ends with a message of {speaker.lower()!r}, expected the assistant'
    )
  return before, answer


def of_hh_rlhf(record: Mapping[str, Any]) -> Iterator[Comparison]:
  """Of HH-RLHF: two dialogues, 'Human:' and 'Assistant:' in turns, that differ in the last answer.

  Raises:
    RowProblemError: bad_tree, if they differ before, or end with no answer; see `of_table`.
  """
  one, other = (_turns(record.get(side), side) for side in ('chosen', 'rejected'))
  for side, turns in (('chosen', one), ('rejected', other)):
    if len(turns) < 2 or turns[-1][0] != ASSISTANT:
      raise RowProblemError('bad_tree', f'{side} does not end with an answer of the assistant')
  if one[:-1] != other[:-1]:
    raise RowProblemError('bad_tree', 'chosen and rejected differ before the last answer')
  yield _checked(dialogue(one[:-1]), one[-1][1], other[-1][1])


def _turns(text: Any, name: str) -> list[tuple[str, str]]:
  parts = _TURN.split(_text(text, name))
  pairs = zip(parts[1::2], parts[2::2], strict=True)
  return [(_SPEAKERS[speaker.lower()], said.strip()) for speaker, said in pairs]


def of_oasst(tree: Mapping[str, Any]) -> Iterator[Comparison]:
  """Of a tree of Open Assistant: the best ranked answer to each message against each worse one.

  Answers without a rank or a text, and deleted ones, are left out; the dialogue up to them is the
  prompt.

  Raises:
    RowProblemError: bad_tree.
  """
  root = tree.get('prompt')
  if not isinstance(root, Mapping):
    raise RowProblemError('bad_tree', f'expected a tree with a prompt, got {sorted(tree)}')
  waiting: list[tuple[Mapping[str, Any], tuple[tuple[str, str], ...]]] = [(root, ())]
  while waiting:
    message, before = waiting.pop()
    role, text = message.get('role'), message.get('text')
    if role not in ('prompter', 'assistant') or not isinstance(text, str):
      raise RowProblemError(
        'bad_tree', f'message {message.get("message_id")!r} has no role or text'
      )
    path = (*before, (_SPEAKERS[role], text))
    replies = message.get('replies') or []
    if not _are_objects(replies):
      raise RowProblemError(
        'bad_tree', f'the replies of {message.get("message_id")!r} are no list of messages'
      )
    replies = [r for r in replies if not r.get('deleted')]
    waiting += [(reply, path) for reply in reversed(replies)]
    ranked = sorted(
      (r for r in replies if r.get('role') == 'assistant' and _is_ranked(r)),
      key=lambda r: r['rank'],
    )
    for worse in ranked[1:]:
      texts = ranked[0]['text'], worse['text']
      if ranked[0]['rank'] < worse['rank'] and texts[0].strip() != texts[1].strip():
        yield _checked(dialogue(path), *texts)


def _is_ranked(message: Mapping[str, Any]) -> bool:
  """Whether an answer can be compared: one that says nothing would cost its whole tree."""
  text, rank = message.get('text'), message.get('rank')
  if rank is not None and not isinstance(rank, int | float):
    named = message.get('message_id')
    raise RowProblemError('bad_tree', f'message {named!r} has the rank {rank!r}')
  return rank is not None and isinstance(text, str) and bool(text.strip())


def _are_objects(values: Any) -> bool:
  return isinstance(values, list) and all(isinstance(value, Mapping) for value in values)


def of_ultrafeedback(record: Mapping[str, Any]) -> Iterator[Comparison]:
  """Of UltraFeedback: the best of the completions by their score against the worst of them.

  Scores are `overall_score`, or `fine-grained_score` where that is not there; records of which all
  scores are equal, or fewer than two are given, hold no comparison. Binarised releases, which have
  chosen and rejected, are read by `of_table`.

  Raises:
    RowProblemError: wrong_columns; see `of_table`.
  """
  if 'completions' not in record:
    yield from of_table(record)
    return
  if not _are_objects(record['completions']):
    raise RowProblemError('wrong_columns', 'completions is no list of objects with a response')
  scored = []
  for completion in record['completions']:
    given = completion.get('overall_score', completion.get('fine-grained_score'))
    try:
      score = float(given)
    except (TypeError, ValueError):
      continue  # 'N/A' in the release
    if math.isfinite(score):
      scored.append((score, completion.get('response')))
  if len(scored) < 2:
    return
  best, worst = (choose(scored, key=lambda x: x[0]) for choose in (max, min))
  if best[0] > worst[0]:
    yield _checked(record.get('instruction'), best[1], worst[1])


def of_verdict(record: Mapping[str, Any]) -> Iterator[Comparison]:
  """Of a line of verdicts.jsonl, a judge's or a person's; ties and lines without verdict are none.

  Raises:
    RowProblemError: wrong_columns; see `of_table`.
  """
  verdict = record.get('verdict')
  if 'answer_a' not in record or 'answer_b' not in record or 'verdict' not in record:
    raise RowProblemError(
      'wrong_columns', f'expected answer_a, answer_b and verdict, got {sorted(record)}'
    )
  if verdict is None or (isinstance(verdict, str) and '=' in verdict):
    return
  answers = record['answer_a'], record['answer_b']
  if verdict not in ('A>>B', 'A>B', 'B>A', 'B>>A'):
    raise RowProblemError('wrong_columns', f'verdict {verdict!r}')
  yield _checked(record.get('inputs'), *(answers if verdict.startswith('A') else answers[::-1]))


READERS: dict[str, Reader] = {
  'table': of_table,
  'hh_rlhf': of_hh_rlhf,
  'oasst': of_oasst,
  'ultrafeedback': of_ultrafeedback,
  'verdicts': of_verdict,
}


def _messages(values: Sequence[Any], name: str) -> list[tuple[str, str]]:
  found = []
  for number, message in enumerate(values, 1):
    role = message.get('role') if isinstance(message, Mapping) else None
    if not isinstance(role, str) or not isinstance(message.get('content'), str):
      raise RowProblemError('bad_tree', f'message {number} of {name} has no role and content')
    found.append((_SPEAKERS.get(role.lower(), role.capitalize()), message['content']))
  if not found:
    raise RowProblemError('bad_tree', f'{name} holds no message')
  return found


def _text(value: Any, name: str) -> str:
  if not isinstance(value, str):
    raise RowProblemError('wrong_columns', f'{name} is {type(value).__name__}, expected a text')
  if text_files.is_blank(value):
    kind = 'empty_inputs' if name == 'prompt' else 'empty_targets'
    raise RowProblemError(kind, f'{name} is empty')
  return value


def _checked(prompt: Any, chosen: Any, rejected: Any) -> Comparison:
  found = Comparison(_text(prompt, 'prompt'), _text(chosen, 'chosen'), _text(rejected, 'rejected'))
  if found.chosen.strip() == found.rejected.strip():
    raise RowProblemError('equal_answers', 'chosen and rejected are the same text')
  return found
