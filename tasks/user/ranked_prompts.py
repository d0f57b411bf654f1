"""Questions with options, made of rows by a prompt template that has `answer_choices`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from aya_train.tasks.user import templates
from aya_train.tasks.user.templates import PromptTemplate

PRINTED_CHARACTERS = 2_048
"""What each `{{ ... }}` of a prompt may print, as in promptsource."""


class Question(NamedTuple):
  """What a model is asked: `label` is the index of the right option."""

  inputs: str
  options: list[str]
  label: int


class OptionProblemError(ValueError):
  """A template and a row that give no question."""


def questions(
  template: PromptTemplate,
  located: Iterable[tuple[str, Mapping[str, Any]]],
  *,
  seed: int = 0,
  max_characters: int | None = PRINTED_CHARACTERS,
) -> Iterator[tuple[int, Question]]:
  """Yields the number of a row, from 0, and its question.

  Rows for which the template gives no target are left out, as promptsource means it.

  Args:
    template: with `answer_choices`.
    located: places, for messages, and rows.
    seed: of `choice`.
    max_characters: what each `{{ ... }}` may print; None for no limit.

  Raises:
    OptionProblemError: the right answer is not among the options, or there are less than two.
    templates.TemplateProblemError: see `templates.render`.
  """
  if template.answer_choices is None:
    raise OptionProblemError(
      f'template {template.name!r} has no answer_choices, which are the options to rank'
    )
  rows = list(located)
  rendered = templates.render_with_options(
    [template], [row for _, row in rows], seed=seed, max_characters=max_characters
  )
  try:
    for number, _, found in rendered:
      if found is None:
        continue
      inputs, target, options = found
      if len(options) < 2 or not all(options) or target not in options:
        raise OptionProblemError(
          f'{rows[number][0]}: template {template.name!r} gives the answer {target!r:.80}, and '
          f'{"the empty option among" if not all(options) else "the options"} {options!r:.200}; '
          'expected two or more, the answer among them'
        )
      yield number, Question(inputs, options, options.index(target))
  except templates.RowTemplateError as error:
    raise OptionProblemError(
      f'{rows[error.number][0]}: template {error.template!r}: {error.detail}'
    ) from error
