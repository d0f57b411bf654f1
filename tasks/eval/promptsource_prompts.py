"""The prompts of promptsource with which mT0 and Aya were scored on held-out tasks.

`prompts/promptsource.yaml` has their text, with source and licence.
"""

import functools

from etils import epath

from aya_train.tasks.user import templates
from aya_train.tasks.user.templates import PromptTemplate

FILE = epath.Path(__file__).parent / 'prompts' / 'promptsource.yaml'

XCOPA = (
  'best_option',
  'C1 or C2? premise, so/because\u2026',
  'i_am_hesitating',
  'cause_effect',
  'plausible_alternatives',
)
XNLI = (
  'guaranteed/possible/impossible',
  'MNLI crowdsource',
  'GPT-3 style',
  'justified in saying',
  'can we infer',
)
XSTORY_CLOZE = (
  'Story Continuation and Options',
  'Answer Given options',
  'Novel Correct Ending',
  'Generate Ending',
  'Choose Story Ending',
)
XWINOGRAD = (
  'underscore refer to',
  'Replace',
  'stand for',
  'does underscore refer to',
  'True or False',
)


@functools.lru_cache(maxsize=1)
def _all() -> dict[str, PromptTemplate]:
  return {template.name: template for template in templates.read(FILE)}


def by_name(name: str) -> PromptTemplate:
  """The template of a name; KeyError if it is none of the 20."""
  return _all()[name]
