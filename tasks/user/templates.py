"""Prompt templates: promptsource's YAML files as they are, and plain Jinja files.

`template_language` says what the language is, `template_worker` where it runs.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from aya_train.tasks.user import template_language, template_worker

TemplateProblemError = template_language.TemplateProblemError
MAX_FILE_BYTES = 4 << 20
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
  """One template.

  Attributes:
    name: unique in its file.
    jinja: inputs, `|||`, targets.
    answer_choices: Jinja too, its parts between `|||`; None if it has none.
    languages: of the prompt's own words, as the file says.
  """

  name: str
  jinja: str
  answer_choices: str | None = None
  languages: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
  """Plain YAML, and promptsource's tags as mappings; any other tag is refused."""


for _tag in ('!Template', '!TemplateMetadata'):
  _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def read(path: epath.PathLike) -> list[PromptTemplate]:
  """Templates of a file: promptsource's YAML, or one Jinja template in any other file.

  Raises:
    TemplateProblemError: what is wrong with the file.
  """
  path = epath.Path(path)
  if (size := path.stat().length) > MAX_FILE_BYTES:
    raise TemplateProblemError(f'{path}: {size:,} bytes, at most {MAX_FILE_BYTES:,}')
  text = path.read_text()
  if path.suffix not in ('.yaml', '.yml'):
    return [PromptTemplate(path.stem, text)]
  try:
    found = [_from_yaml(key, value) for key, value in _mapping(yaml.load(text, _Loader)).items()]
  except (yaml.YAMLError, TemplateProblemError) as error:
    raise TemplateProblemError(f'{path}: {error}') from error
  if len(names := {t.name for t in found}) < len(found):
    raise TemplateProblemError(f'{path}: {len(found)} templates have {len(names)} names')
  return found


def _mapping(content: Any) -> Mapping[str, Any]:
  templates = content.get('templates') if isinstance(content, Mapping) else None
  if not isinstance(templates, Mapping) or not templates:
    raise TemplateProblemError('expected a mapping `templates` of names to templates')
  return templates


def _from_yaml(key: str, value: Any) -> PromptTemplate:
  if isinstance(value, str):
    return PromptTemplate(str(key), value)
  if not isinstance(value, Mapping) or not isinstance(value.get('jinja'), str):
    raise TemplateProblemError(f'template {key!r} has no `jinja`')
  languages = (value.get('metadata') or {}).get('languages') or ()
  return PromptTemplate(
    str(value.get('name') or key), value['jinja'], value.get('answer_choices'), tuple(languages)
  )


def choose(templates: Sequence[PromptTemplate], names: Sequence[str]) -> list[PromptTemplate]:
  """The named templates, or all if there are no names; TemplateProblemError if one lacks."""
  by_name = {t.name: t for t in templates}
  if unknown := [name for name in names if name not in by_name]:
    raise TemplateProblemError(f'no template {unknown}; the file has {sorted(by_name)}')
  return [by_name[name] for name in names] if names else list(templates)


def render(
  templates: Sequence[PromptTemplate],
  rows: Iterable[Mapping[str, Any]],
  *,
  seed: int = 0,
  max_characters: int | None = None,
  all_templates: bool = False,
) -> Iterator[tuple[int, str, tuple[str, str] | None]]:
  """Applies templates to rows, in a process that limits time, memory and output.

  Args:
    templates: at least one.
    rows: JSON values; read as needed.
    seed: of `choice`, and of which template a row gets.
    max_characters: what each `{{ ... }}` may print, None for no limit (2,048 in promptsource).
    all_templates: every row with every template, instead of with one of them.

  Yields:
    Number of the row, name of the template, (inputs, targets) or None where the template gives
    no target for the row.

  Raises:
    TemplateProblemError: a template cannot be compiled, fails on a row or breaks a limit.
  """
  arguments = [
    {
      'name': t.name,
      'jinja': t.jinja,
      'answer_choices': t.answer_choices,
      'seed': seed,
      'max_characters': max_characters,
    }
    for t in templates
  ]
  with template_worker.Worker(arguments) as worker:
    numbered = enumerate(rows)
    while batch := list(itertools.islice(numbered, _BATCH)):
      if all_templates or len(templates) == 1:
        numbers, values = zip(*batch, strict=True)
        results = [worker.render(i, values, numbers) for i in range(len(templates))]
        for offset, (number, _) in enumerate(batch):
          for template, result in zip(templates, results, strict=True):
            yield number, template.name, result[offset]
      else:
        yield from _one_each(worker, templates, batch, seed)


def _one_each(
  worker: template_worker.Worker,
  templates: Sequence[PromptTemplate],
  batch: Sequence[tuple[int, Mapping[str, Any]]],
  seed: int,
) -> Iterator[tuple[int, str, tuple[str, str] | None]]:
  picks = [template_language.pick(seed, number, len(templates)) for number, _ in batch]
  found: dict[int, tuple[str, str] | None] = {}
  for i in sorted(set(picks)):
    mine = [pair for pair, pick in zip(batch, picks, strict=True) if pick == i]
    numbers = [number for number, _ in mine]
    found.update(zip(numbers, worker.render(i, [row for _, row in mine], numbers), strict=True))
  for (number, _), pick in zip(batch, picks, strict=True):
    yield number, templates[pick].name, found[number]
