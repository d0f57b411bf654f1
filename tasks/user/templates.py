"""Prompt templates: promptsource's YAML files as they are, and plain Jinja files.

`template_language` says what the language is, `template_worker` where it runs.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from aya_train import path_facts
from aya_train.tasks.building import text_files
from aya_train.tasks.building.read_report import DamagedFileError
from aya_train.tasks.user import strict_yaml, template_language, template_worker

TemplateProblemError = template_language.TemplateProblemError
RowTemplateError = template_worker.RowTemplateError
MAX_FILE_BYTES = 4 << 20
_BATCH = 256

Rendered = tuple[str, str, list[str]]
"""Inputs, targets and `answer_choices`."""


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


class _Loader(strict_yaml.Loader):
  """Plain YAML, and promptsource's tags as mappings; any other tag is refused."""


for _tag in ('!Template', '!TemplateMetadata'):
  _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def read(path: epath.PathLike) -> list[PromptTemplate]:
  """Templates of a file: promptsource's YAML, or one Jinja template in any other file.

  Raises:
    TemplateProblemError: what is wrong with the file.
  """
  path = epath.Path(path)
  if (size := path_facts.size(path)) > MAX_FILE_BYTES:
    raise TemplateProblemError(f'{path}: {size:,} bytes, at most {MAX_FILE_BYTES:,}')
  try:
    text = text_files.read(path)
  except DamagedFileError as error:
    raise TemplateProblemError(str(error)) from error
  if path.suffix.lower() not in ('.yaml', '.yml'):
    return [PromptTemplate(path.stem, text)]
  try:
    found = [_from_yaml(key, value) for key, value in _mapping(yaml.load(text, _Loader)).items()]
  except (yaml.YAMLError, TemplateProblemError, RecursionError) as error:
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
  metadata = value.get('metadata')
  languages = (metadata.get('languages') if isinstance(metadata, Mapping) else None) or ()
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
  again: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
) -> Iterator[tuple[int, str, tuple[str, str] | None]]:
  """Applies templates to rows, in a process that limits time, memory and output.

  Args:
    templates: at least one.
    rows: JSON values; read as needed.
    seed: of `choice`, and of which template a row gets.
    max_characters: what each `{{ ... }}` may print, None for no limit (2,048 in promptsource).
    all_templates: every row with every template, instead of with one of them.
    again: gives the rows anew, to look for a column that the first of them lack; without it such a
      column is told at the end.

  Yields:
    Number of the row from 0, name of the template, (inputs, targets) or None where the template
    gives no target for the row.

  Raises:
    TemplateProblemError: a template cannot be compiled, fails on a row (`RowTemplateError`), breaks
      a limit, or reads a column or a field that is nowhere.
  """
  for number, name, result in render_with_options(
    templates,
    rows,
    seed=seed,
    max_characters=max_characters,
    all_templates=all_templates,
    again=again,
  ):
    yield number, name, None if result is None else result[:2]


def render_with_options(
  templates: Sequence[PromptTemplate],
  rows: Iterable[Mapping[str, Any]],
  *,
  seed: int = 0,
  max_characters: int | None = None,
  all_templates: bool = False,
  again: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
) -> Iterator[tuple[int, str, Rendered | None]]:
  """`render`, which gives (inputs, targets, the row's `answer_choices`, [] for none)."""
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
    names = _Names(templates, worker, again)
    numbered = enumerate(rows)
    while batch := list(itertools.islice(numbered, _BATCH)):
      picks = None
      if not (all_templates or len(templates) == 1):
        picks = [template_language.pick(seed, number, len(templates)) for number, _ in batch]
      names.check_columns([row for _, row in batch])
      if picks is None:
        numbers, values = zip(*batch, strict=True)
        results = [worker.render_with_options(i, values, numbers) for i in range(len(templates))]
        found = [
          (number, template.name, result[offset])
          for offset, (number, _) in enumerate(batch)
          for template, result in zip(templates, results, strict=True)
        ]
      else:
        found = _one_each(worker, templates, batch, picks)
      names.check_fields(picks, len(batch))
      yield from found
    names.check_columns([], ended=True)
    names.check_fields(None, 0, ended=True)


class _Names:
  """Refuses columns and fields that templates read and that are nowhere.

  A misspelt name would be printed as nothing, and a condition on it never hold. A column counts as
  there if any row of the split has it; a field of an object if any of a template's first rows has
  it, or it is not printed.
  """

  def __init__(
    self,
    templates: Sequence[PromptTemplate],
    worker: template_worker.Worker,
    again: Callable[[], Iterable[Mapping[str, Any]]] | None,
  ):
    self._templates, self._worker, self._again = templates, worker, again
    self._known: set[str] = set()
    self._wanted = {name for columns in worker.columns for name in columns}
    self._rows = [0] * len(templates)
    self._judged: set[int] = set()

  def check_columns(self, rows: Sequence[Mapping[str, Any]], *, ended: bool = False) -> None:
    if not self._wanted:
      return
    self._add(rows)
    if self._wanted and self._again is not None and not ended:
      rest = iter(self._again())
      while self._wanted and (batch := list(itertools.islice(rest, _BATCH))):
        self._add(batch)
      ended = True
    if not (ended and self._wanted and self._known):
      return
    missing = sorted(self._wanted)
    users = [
      template.name
      for template, columns in zip(self._templates, self._worker.columns, strict=True)
      if {*columns} & {*missing}
    ]
    close = difflib.get_close_matches(missing[0], sorted(self._known), 1)
    raise TemplateProblemError(
      f'template {users[0]!r} reads the columns {missing}, which no row has; the columns are '
      f'{sorted(self._known)}.'
      + (f' Did you mean {close[0]!r}?' if close else '')
      + f' Where one may lack, ask with `{{% if {missing[0]} is defined %}}`'
    )

  def _add(self, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
      names = [name.replace('-', '_') for name in row]
      if len({*names}) < len(names):
        raise TemplateProblemError(
          f'columns {sorted(row)}: two have one name, since "-" becomes "_" in templates'
        )
      self._known.update(names)
    self._wanted -= self._known

  def check_fields(self, picks: Sequence[int] | None, rows: int, *, ended: bool = False) -> None:
    for i, template in enumerate(self._templates):
      self._rows[i] += rows if picks is None else picks.count(i)
      if i in self._judged or not (self._rows[i] >= _BATCH or (ended and self._rows[i])):
        continue
      self._judged.add(i)
      for name, fields in self._worker.blank.get(i, {}).items():
        raise TemplateProblemError(
          f'template {template.name!r} prints a field {name!r}, which none of its first '
          f'{self._rows[i]} rows has; the fields are {fields}. Where it may lack, ask with '
          f'`is defined`'
        )


def _one_each(
  worker: template_worker.Worker,
  templates: Sequence[PromptTemplate],
  batch: Sequence[tuple[int, Mapping[str, Any]]],
  picks: Sequence[int],
) -> list[tuple[int, str, Rendered | None]]:
  found: dict[int, Rendered | None] = {}
  for i in sorted(set(picks)):
    mine = [pair for pair, pick in zip(batch, picks, strict=True) if pick == i]
    numbers = [number for number, _ in mine]
    results = worker.render_with_options(i, [row for _, row in mine], numbers)
    found.update(zip(numbers, results, strict=True))
  return [
    (number, templates[pick].name, found[number])
    for (number, _), pick in zip(batch, picks, strict=True)
  ]
