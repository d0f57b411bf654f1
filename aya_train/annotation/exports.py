"""What annotators and judges decided, read from whichever file holds it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts, system_answers
from aya_train.annotation import (
  batches,
  file_kinds,
  label_studio,
  pair_verdicts,
  rated_answers,
)

_VERDICTS = {
  'first': ('A>B', 'B>A'),
  'second': ('B>A', 'A>B'),
  'tie': ('A=B', 'A=B'),
  'both_bad': ('A=B', 'A=B'),
}
APPROVED, EDITED, SKIPPED = 'approved', 'edited', 'skipped'


@dataclasses.dataclass(frozen=True)
class Rating:
  """What a person did with a row of data.

  Attributes:
    item: names the row.
    source, task, language: it was sampled by.
    annotator: the person.
    decision: APPROVED, EDITED or SKIPPED.
    prompt, answer: as they were.
    edited_prompt, edited_answer: as the person left them.
    comment: the person's.
  """

  item: str
  source: str
  task: str
  language: str
  annotator: str
  decision: str
  prompt: str
  answer: str
  edited_prompt: str
  edited_answer: str
  comment: str = ''

  def to_row(self) -> dict[str, str]:
    """As a row of data to train on: as the person left it."""
    return {
      'inputs': self.edited_prompt,
      'targets': self.edited_answer,
      'language_code': self.language,
      'source': self.source,
      'task': self.task,
      'decision': self.decision,
      'annotator': self.annotator,
    }


@dataclasses.dataclass(frozen=True)
class Decided:
  """What some files hold."""

  verdicts: Sequence[pair_verdicts.Verdict]
  ratings: Sequence[Rating]


def read(paths: Sequence[epath.PathLike], rating: rated_answers.Rating | None = None) -> Decided:
  """Verdicts and ratings of files of any kind; later files replace what they hold again.

  Takes exports of our page, exports of Label Studio (JSON and JSON-MIN), verdicts in any form of
  rows, folders of verdicts.jsonl, and with `rating` tables of answers that were rated one by one.

  Args:
    paths: files and folders.
    rating: of tables: how they say which answers are good.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a file is none of these; it names the file, the place in it, and what to do.
  """
  verdicts: list[pair_verdicts.Verdict] = []
  ratings: dict[tuple[str, str], Rating] = {}
  rated: list[rated_answers.Rated] = []
  for path in map(epath.Path, paths):
    is_folder = path_facts.is_dir(path)
    place = _file_of(path, rating) if is_folder else path
    if not path_facts.exists(place):
      raise FileNotFoundError(
        f'{place} is not there'
        + (': of folders, those that `aya-train judge` writes hold verdicts' if is_folder else '')
      )
    if place.name.endswith('.json') and (found := _exported(place)) is not None:
      verdicts += found.verdicts
      ratings |= {(r.item, r.annotator): r for r in found.ratings}
      continue
    rows = file_kinds.first_rows(place)
    if rating is not None and rows and not file_kinds.is_verdicts(rows):
      rated += rated_answers.read(place, rating)
    elif place.name.endswith('.jsonl') and (not rows or file_kinds.is_verdicts(rows)):
      verdicts += pair_verdicts.read(place)  # a torn line is left out
    elif file_kinds.is_verdicts(rows):
      verdicts += [_from_row(where, row) for where, row in system_answers.located_rows(place)]
    else:
      raise ValueError(
        f'{place}: no decision of a person or a judge: {file_kinds.advice(place, rows)}'
      )
  if rating is not None and (rated or not verdicts):
    try:
      verdicts += rated_answers.verdicts(rated, rating)
    except ValueError as error:
      raise ValueError(f'{", ".join(map(str, paths))}: {error}') from error
  return Decided(pair_verdicts.without_repeats(verdicts), list(ratings.values()))


def _file_of(folder: epath.Path, rating: rated_answers.Rating | None) -> epath.Path:
  """The file of a judge's folder."""
  ratings = folder / 'ratings.jsonl'
  return ratings if rating is not None and path_facts.exists(ratings) else folder / 'verdicts.jsonl'


def _exported(path: epath.Path) -> Decided | None:
  """What an export holds; None of a list of other objects."""
  try:
    values = file_kinds.objects(path)
    if isinstance(values, Mapping) and values.get('format') == batches.FORMAT:
      who, done = values.get('annotator'), values.get('annotations')
      if isinstance(who, str) and isinstance(done, list):
        return _decided([(who, each) for each in done], 'annotation')
    elif isinstance(values, list) and all(isinstance(task, Mapping) for task in values):
      is_ours = any('data' in task or {'key', 'prompt'} <= {*task} for task in values)
      if not values or (is_ours and not file_kinds.is_verdicts(values)):
        return _decided(label_studio.annotations(values), 'annotation')
      return None
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  raise ValueError(
    f'{path}: neither an export of the annotation page nor one of Label Studio (JSON, JSON-MIN), '
    f'but {file_kinds.advice(path, [values] if isinstance(values, Mapping) else [])}'
  )


def _from_row(where: str, row: Mapping[str, Any]) -> pair_verdicts.Verdict:
  """A verdict of a table, where all are texts."""
  blank = ('id', 'seconds', 'verdict')  # what JSON has null for
  values = {n: v for n, v in row.items() if v is not None and not (n in blank and v == '')}
  index = str(values.get('index', 0)).strip()
  values |= {'verdict': values.get('verdict'), 'index': int(index) if index.isdecimal() else index}
  if isinstance(flags := values.get('flags'), str):
    values['flags'] = tuple(re.findall(r'\w+', flags))
  if isinstance(seconds := values.get('seconds'), str):
    values['seconds'] = rated_answers.as_number(seconds)
  try:
    return pair_verdicts.Verdict.from_dict(values)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error


def _decided(found: Any, what: str) -> Decided:
  verdicts, ratings = [], []
  for place, (who, values) in enumerate(found, 1):
    try:
      _check(values)
      hidden = batches.revealed(values['key'])
      if 'systems' in hidden:
        verdicts.append(_verdict(values, hidden, who))
      else:
        ratings.append(_rating(values, hidden, who))
    except (KeyError, TypeError, ValueError, IndexError) as error:
      problem = f'no {error}' if isinstance(error, KeyError) else error
      raise ValueError(f'{what} {place} cannot be read: {problem}') from error
  return Decided(verdicts, ratings)


def _check(values: Any) -> None:
  """Raises ValueError where an annotation of our page, or of `label_studio`, has another form."""
  if not isinstance(values, Mapping):
    raise ValueError(f'an annotation is an object, got {values!r}')
  for name in ('id', 'prompt', 'key', 'verdict'):
    if not isinstance(values.get(name), str):
      raise ValueError(f'`{name}` is a text, got {values.get(name)!r}')
  for name in ('comment', 'edited_prompt', 'edited_answer'):
    if name in values and not isinstance(values[name], str):
      raise ValueError(f'`{name}` is a text, got {values[name]!r}')
  texts = values.get('texts')
  if not isinstance(texts, list) or any(not isinstance(text, str) for text in texts):
    raise ValueError(f'`texts` is a list of texts, got {texts!r}')


def _verdict(
  values: Mapping[str, Any], hidden: Mapping[str, Any], who: str
) -> pair_verdicts.Verdict:
  """Of the systems by name, so that files of several batches agree about which is A."""
  if values['verdict'] not in _VERDICTS:
    raise ValueError(f'verdict {values["verdict"]!r} is none of {[*_VERDICTS]}')
  first, second = hidden['systems']
  swapped = first > second
  if len(values['texts']) != 2:
    raise ValueError(f'a comparison has two texts, got {len(values["texts"])}')
  texts = values['texts'][::-1] if swapped else values['texts']
  a, b = sorted((first, second))
  return pair_verdicts.Verdict.from_dict(
    {
      **{name: hidden[name] for name in ('task', 'index', 'id', 'language')},
      'key': batches.digest(values['id'], who),
      'inputs': values['prompt'],
      'system_a': a,
      'system_b': b,
      'answer_a': texts[0],
      'answer_b': texts[1],
      'order': 'ba' if swapped else 'ab',
      'verdict': _VERDICTS[values['verdict']][swapped],
      'by': pair_verdicts.PERSON,
      'annotator': who,
      'protocol': 'annotation',
      'flags': [pair_verdicts.BOTH_BAD] if values['verdict'] == 'both_bad' else [],
      'raw': values.get('comment', ''),
      'seconds': values.get('seconds'),
    }
  )


def _rating(values: Mapping[str, Any], hidden: Mapping[str, Any], who: str) -> Rating:
  if values['verdict'] not in (APPROVED, EDITED, SKIPPED):
    raise ValueError(f'verdict {values["verdict"]!r} is none of {[APPROVED, EDITED, SKIPPED]}')
  if len(values['texts']) != 1:
    raise ValueError(f'a row of data has one answer, got {len(values["texts"])}')
  prompt, [answer] = values['prompt'], values['texts']
  for name in ('source', 'task', 'language'):
    if not isinstance(hidden[name], str):
      raise ValueError(f'the key holds no text but {hidden[name]!r} under `{name}`')
  edited_prompt = values.get('edited_prompt', prompt)
  edited_answer = values.get('edited_answer', answer)
  decision = values['verdict']
  if decision != SKIPPED:  # what was done to the text counts, not which button was pressed
    decision = APPROVED if (edited_prompt, edited_answer) == (prompt, answer) else EDITED
  return Rating(
    *(values['id'], hidden['source'], hidden['task'], hidden['language'], who, decision),
    *(prompt, answer, edited_prompt, edited_answer, values.get('comment', '')),
  )
