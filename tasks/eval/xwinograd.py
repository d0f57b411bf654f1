"""XWinograd: which of two things a pronoun stands for; see xwinograd.md."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from aya_train.tasks.eval import (
  eval_releases,
  prompted_benchmark,
  promptsource_prompts,
  row_columns,
)
from aya_train.tasks.eval.row_columns import EvalDataError, Located, Record

RELEASE = eval_releases.Release(
  'xwinograd',
  'https://huggingface.co/datasets/Muennighoff/xwinograd (folder test)',
  'Muennighoff/xwinograd',
  '9dd5ea5505fad86b7bedad667955577815300cee',
)
LANGUAGES = {'en': 'eng', 'fr': 'fra', 'jp': 'jpn', 'pt': 'por', 'ru': 'rus', 'zh': 'zho'}
_ORIGINAL = ('lang', 'source', 'original', 'sentence', 'tokens', 'pronoun', 'candidates')
_QUOTES = {'``': '"', "''": '"'}  # as the tokenizer of the English part writes them


def read(split: str, code: str) -> Iterator[Located]:
  """Rows sentence (with '_' for the pronoun), option1, option2, answer ('1', '2'), id.

  Of the files of Muennighoff/xwinograd, or of the original dataset.tsv, which has all languages.
  """
  patterns = (
    f'{split}/{code}.jsonl',
    f'{code}.jsonl',
    *eval_releases.hub_patterns(code, split),
  )
  original = 'dataset.tsv'
  for where, record in eval_releases.rows(RELEASE, *patterns, original, columns=_ORIGINAL):
    number = where.rpartition(' ')[2]
    if 'candidates' in record:
      if record['lang'] == code:
        yield where, {**_from_original(record, where), 'id': number}
      continue
    row = {
      column: row_columns.text(record, column, where)
      for column in ('sentence', 'option1', 'option2')
    }
    answer = str(row_columns.integer(record, 'answer', where, (1, 2)))
    yield where, {**row, 'answer': answer, 'id': number}


def _from_original(record: Record, where: str) -> dict[str, str]:
  """A row of the original: the pronoun is told by its tokens, which spaces do not follow."""
  sentence = row_columns.text(record, 'sentence', where)
  tokens, (pronoun, (start, end), _), candidates = (
    _json(record, column, where) for column in ('tokens', 'pronoun', 'candidates')
  )
  places = _characters(sentence, tokens, where)
  first, last = places[start][0], places[end - 1][1]
  right = [i for i, candidate in enumerate(candidates, 1) if candidate[-1]]
  if sentence[first:last] != pronoun or len(candidates) != 2 or len(right) != 1:
    raise EvalDataError(
      f'{where}: expected the pronoun {pronoun!r} at its tokens and two candidates, one of them '
      f'right, got {sentence[first:last]!r} and {candidates!r:.200}'
    )
  return {
    'sentence': f'{sentence[:first]}_{sentence[last:]}'.strip(),
    'option1': candidates[0][0],
    'option2': candidates[1][0],
    'answer': str(right[0]),
  }


def _json(record: Record, column: str, where: str) -> Any:
  try:
    return json.loads(record[column])
  except ValueError as error:
    raise EvalDataError(f'{where}: no JSON in {column!r} ({error})') from error


def _characters(sentence: str, tokens: Sequence[str], where: str) -> list[tuple[int, int]]:
  """Where each token begins and ends."""
  found, position = [], 0
  for token in tokens:
    text = token if token in sentence[position:] else _QUOTES.get(token, token)
    start = sentence.find(text, position)
    if start < 0:
      raise EvalDataError(f'{where}: no token {token!r} after {sentence[:position]!r}')
    position = start + len(text)
    found.append((start, position))
  return found


TASKS = prompted_benchmark.add(
  'xwinograd', read, LANGUAGES, promptsource_prompts.XWINOGRAD, ('test',), 'test'
)
AYA_EVAL = prompted_benchmark.names(TASKS)
