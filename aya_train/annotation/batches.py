"""What annotators are given: pairs of answers whose systems they do not know, or rows of data."""

import base64
import binascii
import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.annotation import answer_pairs
from aya_train.tasks.languages import aya101, language_codes, writing_direction

PAIRS, DATA = 'pairs', 'data'
FORMAT = 'aya-train annotations'


@dataclasses.dataclass(frozen=True)
class Item:
  """One thing to decide about.

  Attributes:
    id: a digest of what is shown.
    language: ISO 639-3 where a table has the code, else as the rows say.
    prompt: text.
    texts: the two answers in the order in which they are shown; of a row of data its one answer.
    key: what annotators should not see, or need not; see `hidden` and `revealed`.
  """

  id: str
  language: str
  prompt: str
  texts: Sequence[str]
  key: str

  def to_page(self) -> dict[str, Any]:
    """As the page gets it: every text with its direction."""

    def text(value: str) -> dict[str, Any]:
      ways = [line.direction for line in writing_direction.lines(value, self.language)]
      return {
        'text': value,
        'dir': writing_direction.of_text(value, self.language),
        'lines': ways,
      }

    return {
      'id': self.id,
      'language': described(self.language),
      'lang': writing_direction.html_language(self.language),
      'dir': writing_direction.of_language(self.language),
      'prompt': text(self.prompt),
      'texts': [text(value) for value in self.texts],
      'key': self.key,
    }


@dataclasses.dataclass(frozen=True)
class Batch:
  """What one page holds.

  Attributes:
    id: a digest of all items and their order, by which a browser keeps progress.
    mode: PAIRS or DATA.
    language: of all its items, '' if there are several.
    items: in the order in which they are shown.
  """

  id: str
  mode: str
  language: str
  items: Sequence[Item]


def described(language: str) -> str:
  return aya101.described(language) if language else ''


def language_of(code: str) -> str:
  """ISO 639-3 of a code in any system; the code itself if no table has it."""
  try:
    return language_codes.resolve(code).code
  except language_codes.UnknownLanguageError:
    return code


def hidden(values: Mapping[str, Any]) -> str:
  """Values as a text that nobody reads by accident. It is no secret: who wants to can decode it."""
  return base64.b64encode(json.dumps(values, ensure_ascii=False).encode()).decode()


def revealed(key: str) -> dict[str, Any]:
  """What `hidden` was given.

  Raises:
    ValueError: it is no such text.
  """
  try:
    values = json.loads(base64.b64decode(key, validate=True))
  except (binascii.Error, ValueError, TypeError) as error:
    raise ValueError(f'the key {str(key)[:40]!r} is not one of `aya-train annotate`') from error
  if not isinstance(values, dict):
    raise ValueError(f'the key holds no object but {values!r}')
  return values


def digest(*texts: str) -> str:
  """12 hexadecimal digits of texts; those of ('a', 'bc') and ('ab', 'c') differ."""
  data = b''.join(hashlib.sha256(text.encode('utf-8', 'surrogatepass')).digest() for text in texts)
  return hashlib.sha256(data).hexdigest()[:12]


def pairs(answered: Sequence[answer_pairs.Answered], each: int, seed: int) -> list[Item]:
  """A sample of prompts a language, with every pair of systems on each, in a random order.

  Which answer comes first is drawn for each pair from the seed and from what it shows: other
  samples do not change it.

  Args:
    answered: prompts with the answers of all systems.
    each: prompts a language, fewer where there are not as many.
    seed: of the sample, of the order of items and of the order of answers.
  """
  found = []
  for language, rows in _by_language(answered).items():
    draw = random.Random(f'{seed} {language}')
    sample = draw.sample(rows, min(each, len(rows)))
    shown = [
      _pair(row, language, pair, seed)
      for row in sample
      for pair in itertools.combinations(sorted(row.answers), 2)
    ]
    draw.shuffle(shown)
    found += shown
  return found


def _by_language(
  answered: Sequence[answer_pairs.Answered],
) -> dict[str, list[answer_pairs.Answered]]:
  found: dict[str, list[answer_pairs.Answered]] = {}
  for row in answered:
    found.setdefault(language_of(row.language), []).append(row)
  return dict(sorted(found.items()))


def _pair(row: answer_pairs.Answered, language: str, systems: tuple[str, str], seed: int) -> Item:
  texts = [row.answers[system] for system in systems]
  # With its place: the same prompt may come twice, with the same answers.
  place = (row.task, language, str(row.index), row.id or '')
  what = digest(*place, row.inputs, *systems, *texts)
  order = [0, 1]
  if random.Random(f'{seed} {what}').random() < 0.5:
    order.reverse()
  key = {
    'task': row.task,
    'index': row.index,
    'id': row.id,
    'language': language,
    'systems': [systems[i] for i in order],
  }
  shown = [texts[i] for i in order]
  # The name of an item shows no system either.
  return Item(digest(what, str(seed)), language, row.inputs, shown, hidden(key))


@dataclasses.dataclass(frozen=True)
class DataRow:
  """A row of training data: source, task and language it is sampled by, and its two texts."""

  source: str
  task: str
  language: str
  inputs: str
  targets: str


def data_items(rows: Sequence[DataRow], seed: int) -> list[Item]:
  """Rows in a random order inside each language, so that sources are mixed."""
  made = []
  for row in rows:
    language = language_of(row.language)
    key = {'source': row.source, 'task': row.task, 'language': language}
    what = digest(row.source, row.task, row.inputs, row.targets)
    made.append(Item(what, language, row.inputs, [row.targets], hidden(key)))
  unique = list({item.id: item for item in made}.values())
  random.Random(f'{seed} data').shuffle(unique)
  return sorted(unique, key=lambda item: item.language)


def split(mode: str, items: Sequence[Item], together: bool) -> list[Batch]:
  """One batch a language, since people read few; or all in one."""
  groups: dict[str, list[Item]] = {}
  for item in items:
    groups.setdefault('' if together else item.language, []).append(item)
  made = []
  for language, group in groups.items():
    languages = {item.language for item in group}
    name = next(iter(languages)) if len(languages) == 1 else ''
    texts = [t for item in group for t in (item.id, item.key, *item.texts)]
    made.append(Batch(digest(mode, language, *texts), mode, name, group))
  return made
