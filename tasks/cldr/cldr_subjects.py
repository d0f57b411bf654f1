"""What a prompt of the CLDR set asks about: the templates read backwards."""

import functools
import re
import string

from aya_train.tasks.cldr import cldr_templates

# The slots that hold it, most telling first; the others name languages and directions.
_SUBJECTS = ('iso', 'english', 'number', 'items', 'text', 'code', 'other', 'known')


def _pattern(template: str) -> re.Pattern[str]:
  parts = [
    re.escape(text) + (f'(?P<{slot}>.+)' if slot else '')
    for text, slot, _, _ in string.Formatter().parse(template)
  ]
  return re.compile(''.join(parts))


@functools.cache
def _patterns(kind: str) -> tuple[re.Pattern[str], ...]:
  """Those of a kind; a date has them by style."""
  found = [
    _pattern(template)
    for name, templates in cldr_templates.TEMPLATES.items()
    if name == kind or name.removeprefix(f'{kind}_') in ('long', 'full')
    for template in templates
  ]
  # Where two fit, the longer text of its own says more.
  return tuple(sorted(found, key=lambda pattern: -len(pattern.pattern)))


def subject(kind: str, prompt: str) -> str:
  """The date, number, name or text that a prompt asks about; the prompt if it is none of these."""
  for pattern in _patterns(kind):
    if (found := pattern.fullmatch(prompt)) is not None:
      slots = found.groupdict()
      return next((slots[name] for name in _SUBJECTS if name in slots), prompt)
  return prompt
