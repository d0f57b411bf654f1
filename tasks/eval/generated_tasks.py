"""Tasks whose answers are generated: from the examples of a benchmark to SeqIO tasks.

A module of a benchmark reads released files into `Example`s; a `Prompt` words each of them. Tasks
are `BENCHMARK.LANGUAGE.PROMPT`, and `BENCHMARK.LANGUAGE.PROMPT.SUBSET` of a part that is reported
apart; each language has a mixture `BENCHMARK.LANGUAGE`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from aya_train import path_facts
from aya_train.tasks import eval_tasks, features
from aya_train.tasks.eval import eval_releases, eval_source, release_files, row_columns
from aya_train.tasks.languages import aya101, language_codes
from aya_train.tasks.metrics import references

COLUMNS: Mapping[str, tf.TensorSpec] = {
  'inputs': eval_source.STRING,
  'targets': eval_source.STRING,
  'references': eval_source.STRINGS,
  'id': eval_source.STRING,
  'language': eval_source.STRING,
}
"""Of every generated task's rows; `targets` is the first reference."""

ANY_LANGUAGE = 'mul'
"""In names of tasks: rows of several languages, each of which says its own."""

logger = logging.getLogger('aya_train.tasks.eval.generated_tasks')

_LISTED = 12  # names of what exists, in a refusal


class MissingLanguageError(FileNotFoundError, row_columns.EvalDataError):
  """Files hold many languages, and not the one that is asked for; the message names those.

  It is a file that is not found, so that mixtures leave the language out and say so.
  """


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A template of inputs.

  Attributes:
    name: a part of the task's name.
    text: with `{column}`s, as of `str.format`.
  """

  name: str
  text: str


@dataclasses.dataclass(frozen=True)
class Example:
  """One example of a benchmark, before it is worded.

  Attributes:
    where: 'FILE row 3', for messages.
    columns: what prompts read.
    references: right answers, any of which will do; [] where there are none to have.
    id: of the release, else the number of the row.
    language: ISO 639-3 of the answer that is asked for; of the text, where a label is asked for.
    fields: what is kept beside; the benchmark's `fields` says of which types.
  """

  where: str
  columns: Mapping[str, str]
  references: Sequence[str] = ()
  id: str = ''
  language: str = ''
  fields: Mapping[str, str | int] = dataclasses.field(default_factory=dict)


def rows(
  split: str,
  *,
  read: Callable[[str], Iterable[Example]],
  prompt: Prompt,
  needs_references: bool = True,
) -> Iterator[dict[str, Any]]:
  """Examples as rows of a task: `COLUMNS` and the examples' fields.

  Blank references are dropped; an example that is left with none stays, for metrics to count. Ids
  that come again are warned of: the published sets are taken as they are.

  Raises:
    EvalDataError: there are no examples, or no reference in any of them although they are needed.
    KeyError: a prompt reads a column that there is not; a defect.
  """
  first, referenced = '', not needs_references
  places: dict[tuple[str, ...], str] = {}
  repeated: list[str] = []
  for example in read(split):
    first = first or example.where
    key = (example.id, str(example.fields.get('sample', '')))
    if example.id and (earlier := places.setdefault(key, example.where)) != example.where:
      repeated.append(f'{example.id!r} at {earlier} and at {example.where}')
    found = [text for text in example.references if text.strip()]
    referenced = referenced or bool(found)
    yield {
      **example.fields,
      'inputs': prompt.text.format_map(example.columns),
      'targets': found[0] if found else '',
      'references': found,
      'id': example.id,
      'language': example.language,
    }
  if repeated:
    logger.warning(
      '%d ids come again, so examples cannot be told apart by them: %s', len(repeated), repeated[0]
    )
  if not first:
    raise row_columns.EvalDataError(f'no example in {split!r}: its files have no rows')
  if not referenced:
    raise row_columns.EvalDataError(
      f'{first} and all rows after it: no reference answer, so nothing can be scored'
    )


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What the tasks of a benchmark share.

  Attributes:
    name: 'xlsum'.
    read: examples of a split; called with the split and the `arguments` of a task.
    metric_fns: of (targets, predictions); see tasks/metrics.
    metric: the published one.
    split: the published one.
    splits: those that there are.
    fields: kept columns, with their types.
    needs_references: whether a split without any is refused.
    version: see `eval_tasks.EvalTask`.
  """

  name: str
  read: Callable[..., Iterable[Example]]
  metric_fns: Sequence[Callable[..., Any]]
  metric: str
  split: str = 'test'
  splits: Sequence[str] = ('test',)
  fields: Mapping[str, tf.TensorSpec] = dataclasses.field(default_factory=dict)
  needs_references: bool = True
  version: str = '1.0.0'

  def add(
    self, language: str, prompt: Prompt, *, variety: str = '', subset: str = '', **arguments: Any
  ) -> str:
    """Registers a task; nothing is opened.

    Args:
      language: ISO 639-3; '' where rows have languages of their own.
      prompt: how examples are worded.
      variety: code with a script ('zho_Hant'), of what is not the language's usual form.
      subset: 'to_english'.
      **arguments: of `read`.

    Returns:
      The name of the task.
    """
    parts = (self.name, variety or language or ANY_LANGUAGE, eval_tasks.slug(prompt.name), subset)
    name = '.'.join(part for part in parts if part)
    read = functools.partial(self.read, **arguments)
    seqio.TaskRegistry.add(
      name,
      source=eval_source.EvalSource(
        functools.partial(rows, read=read, prompt=prompt, needs_references=self.needs_references),
        {**COLUMNS, **self.fields},
        self.splits,
      ),
      preprocessors=list(features.TOKENIZE_AND_APPEND_EOS),
      output_features=features.OUTPUT_FEATURES,
      postprocess_fn=references.postprocess,
      metric_fns=[references.together(self.metric_fns)],
    )
    eval_tasks.add(
      eval_tasks.EvalTask(
        name,
        self.name,
        language,
        eval_tasks.slug(prompt.name),
        eval_tasks.GENERATED,
        self.metric,
        self.split,
        self.version,
        '.'.join(part for part in (subset, variety) if part),
      )
    )
    return name


def code_of(name: str) -> str:
  """ISO 639-3 of a release's code or name of a language, that of the 101 where it is one."""
  return language_codes.resolve(name).code


def name_of(code: str) -> str:
  """English name of an ISO 639-3 code, for prompts; the code where there is none."""
  return aya101.described(code).removesuffix(f' ({code})')


def find(
  release: eval_releases.Release, what: str, patterns: Sequence[str], others: Sequence[str]
) -> list[release_files.EvalFile]:
  """Files of a language; where there are none, says which there are.

  Args:
    release: of the benchmark.
    what: the language, for the message: 'swh_Latn'.
    patterns: see `eval_releases.find`, of which the first that is found counts.
    others: patterns of the files of all languages.

  Raises:
    FileNotFoundError: there are none.
  """
  try:
    return eval_releases.find(release, *patterns)
  except OSError as error:
    if not (found := eval_releases.everywhere(release, others)):
      raise
    names = sorted({file.name.rsplit(f'/{release.folder}/', 1)[-1] for file in found})
    raise FileNotFoundError(
      f'{release.folder}: nothing of {what}. There are {listed(names)}. Looked for: {error}'
    ) from error


def listed(names: Sequence[str]) -> str:
  """Names for a message, the first of many."""
  more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
  return ', '.join(names[:_LISTED]) + more


def sizes(files: Sequence[release_files.EvalFile]) -> tuple[int, ...]:
  """Bytes of files: a part of the key under which what they hold is kept in memory."""
  return tuple(path_facts.size(file.path) for file in files)


def of_language(
  examples: Iterable[Example], code: str, release: eval_releases.Release
) -> Iterator[Example]:
  """Those in one language, of files that hold many; all if no code is given.

  Raises:
    MissingLanguageError: there is none; says which languages there are.
  """
  seen: dict[str, None] = {}
  found = False
  for example in examples:
    seen[example.language] = None
    if not code or example.language == code:
      found = True
      yield example
  if not found:
    raise MissingLanguageError(
      f'{release.folder}: no row of {code or "any language"}; '
      + (f'the files have {listed(sorted(seen))}' if seen else 'the files have no rows')
    )
