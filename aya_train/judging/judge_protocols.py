"""What a judge is told, and how its reply is read: a TOML file a protocol, of ours or the user's.

  kind = 'pair'            # or 'single'
  orders = 'both'          # of a pair: shuffled (drawn by a seed for each row), both, fixed
  max_tokens = 1024        # of a reply
  temperature = 0.0        # the default
  system = '...'           # Jinja, as user
  user = '...'             # {{ prompt }}, {{ answer_1 }}, {{ answer_2 }}; of one: {{ answer }}
  positive = ['refused']   # of one answer: labels that the rate counts

  [labels]                 # what the reply ends with -> what it means
  '[[A>>B]]' = '1>>2'      # of a pair: about places. Of one answer: a name, or a number

`mark` is a word that is in none of the texts of a row, to tell them from what is said to the judge.
Also known are `language` and `reference`, which are '' where a row has none.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
from etils import epath

from aya_train import path_facts
from aya_train.judging import reply_labels

PAIR, SINGLE = 'pair', 'single'
SHUFFLED, BOTH, FIXED = 'shuffled', 'both', 'fixed'
PLACES = ('1>>2', '1>2', '1=2', '2>1', '2>>1')
_FOLDER = pathlib.Path(__file__).parent / 'protocols'
_ANSWERS = {PAIR: ('answer_1', 'answer_2'), SINGLE: ('answer',)}
_KNOWN = ('prompt', 'language', 'reference', 'mark')
_DEFAULTS: Mapping[str, Any] = {
  'name': '',
  'kind': PAIR,
  'orders': SHUFFLED,
  'system': '',
  'user': '',
  'labels': {},
  'positive': [],
  'temperature': 0.0,
  'max_tokens': 1024,
}
_ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a judge is asked; see the module."""

  name: str
  kind: str
  orders: str
  system: str
  user: str
  labels: Mapping[str, str | float]
  positive: tuple[str, ...] = ()
  temperature: float = 0.0
  max_tokens: int = 1024

  def messages(self, **texts: str) -> list[dict[str, str]]:
    """The messages of one call; `texts` are the prompt, the answers, language and reference."""
    given = {**dict.fromkeys(_KNOWN, ''), **texts}
    given['mark'] = mark(given)
    said = [('system', self.system), ('user', self.user)]
    found = [(role, _ENVIRONMENT.from_string(text).render(given).strip()) for role, text in said]
    return [{'role': role, 'content': text} for role, text in found if text]

  def label(self, reply: str) -> str | float | None:
    """What a reply means (`reply_labels.label`)."""
    found: str | float | None = reply_labels.label(reply, self.labels)
    return found

  def holds_label(self, text: str) -> bool:
    """Whether a text, such as an answer, holds one of the labels."""
    return reply_labels.holds(text, self.labels)


def names() -> list[str]:
  """Of the protocols that come with the package."""
  return sorted(path.stem for path in _FOLDER.glob('*.toml'))


def load(name: str, kind: str) -> Protocol:
  """One of ours by name, or a file of the user's that ends in .toml.

  Raises:
    FileNotFoundError, ValueError: there is none, or what is wrong with it.
  """
  ours = name in names()
  path = epath.Path(_FOLDER / f'{name}.toml' if ours else name)
  if not ours and not name.endswith('.toml'):
    raise ValueError(f'no protocol {name!r}: give one of {names()} or a file that ends in .toml')
  if not path_facts.exists(path):
    raise FileNotFoundError(f'no protocol at {path}')
  from aya_train.tasks.building import text_files  # TensorFlow comes with it

  found = parse(text_files.toml(path), path.stem, str(path))
  if found.kind != kind:
    count = {PAIR: 'two answers', SINGLE: 'one answer'}
    raise ValueError(f'{name} judges {count[found.kind]} of a row, and {count[kind]} are given')
  return found


def parse(values: Mapping[str, Any], name: str, where: str) -> Protocol:
  """A protocol from the keys of its file; ValueError says what is wrong with them."""
  if unknown := sorted({*values} - {*_DEFAULTS}):
    raise ValueError(f'{where}: unknown keys {unknown}; known are {[*_DEFAULTS]}')
  given = {**_DEFAULTS, **values}
  for key, default in _DEFAULTS.items():
    expected = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(given[key], expected):
      said = f'{type(default).__name__}, got {given[key]!r}'
      raise ValueError(f'{where}: {key} must be of type {said}')
  if given['kind'] not in _ANSWERS:
    raise ValueError(f'{where}: kind must be pair or single, got {given["kind"]!r}')
  if given['orders'] not in (SHUFFLED, BOTH, FIXED):
    raise ValueError(f'{where}: orders must be shuffled, both or fixed, got {given["orders"]!r}')
  if not given['labels']:
    raise ValueError(f"{where}: no [labels], so no reply could be read: '[[1]]' = '1>2' ...")
  if given['kind'] == PAIR:
    for label, meaning in given['labels'].items():
      if meaning not in PLACES:
        raise ValueError(f'{where}: label {label!r} must mean one of {PLACES}, got {meaning!r}')
  elif unknown := sorted({*given['positive']} - {*map(str, given['labels'].values())}):
    raise ValueError(f'{where}: positive names {unknown}, which no label means')
  if blank := [label for label in given['labels'] if not label.strip()]:
    raise ValueError(f'{where}: label {blank[0]!r} is blank')
  _check_templates(given, where)
  keys = ('kind', 'orders', 'system', 'user', 'labels', 'temperature', 'max_tokens')
  return Protocol(
    name=given['name'] or name,
    positive=tuple(given['positive']),
    **{key: given[key] for key in keys},
  )


def mark(texts: Mapping[str, str]) -> str:
  """A word of eight hexadecimal digits that no text holds; the same for the same texts."""
  joined = '\0'.join(f'{name}\0{texts[name]}' for name in sorted(texts) if name != 'mark')
  salt = 0
  while True:
    found = hashlib.sha256(f'{salt}\0{joined}'.encode('utf-8', 'replace')).hexdigest()[:8]
    if found not in joined:
      return found
    salt += 1


def _check_templates(given: Mapping[str, Any], where: str) -> None:
  answers = _ANSWERS[given['kind']]
  used: set[str] = set()
  for key in ('system', 'user'):
    try:
      used |= jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(given[key]))
    except jinja2.TemplateSyntaxError as error:
      raise ValueError(f'{where}: {key}, line {error.lineno}: {error.message}') from None
  if unknown := sorted(used - {*answers, *_KNOWN}):
    raise ValueError(f'{where}: unknown {unknown}; a {given["kind"]} has {[*_KNOWN, *answers]}')
  if missing := [name for name in answers if name not in used]:
    raise ValueError(f'{where}: neither system nor user shows {missing}: write {{{{ NAME }}}}')
