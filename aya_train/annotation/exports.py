"""What annotators and judges decided, read from whichever file holds it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train.annotation import batches, label_studio, pair_verdicts

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


def read(paths: Sequence[epath.PathLike]) -> Decided:
  """Verdicts and ratings of files of any kind; later files replace what they hold again.

  Takes exports of our page, exports of Label Studio (JSON and JSON-MIN), verdicts.jsonl, and
  folders of the last.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a file is none of these; it names the file and the place in it.
  """
  verdicts: list[pair_verdicts.Verdict] = []
  ratings: dict[tuple[str, str], Rating] = {}
  for path in map(epath.Path, paths):
    place = path / 'verdicts.jsonl' if path.is_dir() else path
    if not place.exists():
      raise FileNotFoundError(f'{place} is not there')
    if place.name.endswith('.jsonl'):
      verdicts += pair_verdicts.read(place)
      continue
    try:
      found = _read_json(place)
    except ValueError as error:
      raise ValueError(f'{place}: {error}') from error
    verdicts += found.verdicts
    ratings |= {(r.item, r.annotator): r for r in found.ratings}
  return Decided(pair_verdicts.without_repeats(verdicts), list(ratings.values()))


def _read_json(path: epath.Path) -> Decided:
  try:
    values = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(f'no JSON ({error}): was it saved whole?') from error
  if isinstance(values, list) and all(isinstance(task, Mapping) for task in values):
    return _decided(label_studio.annotations(values), 'annotation')
  if isinstance(values, Mapping) and values.get('format') == batches.FORMAT:
    who, done = values.get('annotator'), values.get('annotations')
    if isinstance(who, str) and isinstance(done, list):
      return _decided([(who, each) for each in done], 'annotation')
  raise ValueError(
    'neither an export of the annotation page nor one of Label Studio (JSON, JSON-MIN)'
  )


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
