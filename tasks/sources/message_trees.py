"""Conversations as the Data Provenance pipeline writes them, and the pairs they hold.

A conversation is a list of messages {'from': 'user' or 'assistant', 'text', 'parent', 'score'}:
`parent` is the identifier of the audited data set on a first message, and the index of the
message that is answered elsewhere, so that several answers to one message make a tree.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aya_train.tasks.building.read_report import RowProblemError


class Pair(NamedTuple):
  """A question and an answer to it.

  Attributes:
    inputs, targets: the text of the user's message and of the assistant's.
    dataset_id: of the audited data set, from the first message of the conversation.
    message: index of the answer in the list.
  """

  inputs: str
  targets: str
  dataset_id: str
  message: int


def _message(messages: Sequence[Any], index: int) -> Mapping[str, Any]:
  message = messages[index]
  if not isinstance(message, Mapping):
    raise RowProblemError('bad_tree', f'message {index} is {type(message).__name__}, not an object')
  if message.get('from') not in ('user', 'assistant'):
    raise RowProblemError('bad_tree', f'message {index} is from {message.get("from")!r}')
  if not isinstance(message.get('text'), str):
    raise RowProblemError('bad_tree', f'message {index} has no text')
  parent = message.get('parent')
  if isinstance(parent, bool) or not isinstance(parent, str | int):
    raise RowProblemError('bad_tree', f'message {index} has parent {parent!r}')
  if isinstance(parent, int) and not 0 <= parent < index:
    raise RowProblemError(
      'bad_tree', f'message {index} has parent {parent}; expected an earlier one'
    )
  if isinstance(parent, str) and not parent:
    raise RowProblemError('bad_tree', f'message {index} names no data set')
  score = message.get('score')
  if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
    raise RowProblemError('bad_tree', f'message {index} has score {score!r}')
  return message


def pairs(messages: Any) -> Iterator[Pair]:
  """A pair for each answer to a user's message that has no score or one of at least 1.

  Raises:
    RowProblemError: bad_tree, if the list is not of the form above. All of it is checked first.
  """
  if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
    raise RowProblemError('bad_tree', 'expected a list of messages')
  checked = [_message(messages, i) for i in range(len(messages))]
  datasets: list[str] = []
  for message in checked:
    parent = message['parent']
    datasets.append(parent if isinstance(parent, str) else datasets[parent])
  for index, message in enumerate(checked):
    parent = message['parent']
    if message['from'] != 'assistant' or isinstance(parent, str):
      continue
    score = message.get('score')
    if checked[parent]['from'] != 'user' or (score is not None and score < 1):
      continue
    yield Pair(checked[parent]['text'], message['text'], datasets[index], index)
