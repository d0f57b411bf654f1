"""Benchmarks of a user: a row of a table that says how answers are scored becomes evaluation tasks.

- `rank = true`: the options are `answer_choices` of the templates, or the columns `options` (a
  list) and `label` (index of the right one) where there are no templates. Both protocols of
  `ranked_options` get tasks.
- `metrics = [...]`: answers are generated and compared with the template's targets, or with the
  texts of the column that `references` names.

Tasks are NAME.LANG.PROMPT (NAME.LANG without templates, NAME.PROMPT where rows have languages of
their own, or none), those of lm-evaluation-harness's protocol end in '.harness'. NAME and
NAME.harness are mixtures of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import seqio
import tensorflow as tf
from etils import epath

from aya_train.tasks import eval_tasks, features, ranked_options, sliced_source
from aya_train.tasks.eval_tasks import EvalTask
from aya_train.tasks.languages import language_codes
from aya_train.tasks.metrics import references
from aya_train.tasks.user import answer_metrics, ranked_prompts, templates
from aya_train.tasks.user.dataset_tables import Dataset, UserDataError
from aya_train.tasks.user.templates import PromptTemplate

GENERATED_FIELDS: Mapping[str, tf.TensorSpec] = {
  'inputs': tf.TensorSpec((), tf.string),
  'targets': tf.TensorSpec((), tf.string),
  'references': tf.TensorSpec((None,), tf.string),
  'id': tf.TensorSpec((), tf.string),
  'language': tf.TensorSpec((), tf.string),
}

Located = tuple[str, Mapping[str, Any]]
Reader = Callable[[Dataset, str], Iterator[Located]]

T = TypeVar('T')
_NAMED_ROWS = 5  # in a message about rows that are wrong
_TASKS: dict[str, list[str]] = defaultdict(list)
_MIXTURES: dict[str, list[str]] = defaultdict(list)


class UserQuestions(sliced_source.SliceableSource):
  """Rows of a user's data set as a benchmark asks them, read at each use."""

  default_split = 'test'

  def __init__(self, dataset: Dataset, read: Reader, template: PromptTemplate | None, content: str):
    self.dataset = dataset
    self.read = read
    self.template = template
    self.content = content
    super().__init__(splits=tuple(dataset.files))

  def rows(self, split: str) -> list[dict[str, Any]]:
    """Rows of `ranked_options.QUESTION` or of `GENERATED_FIELDS`.

    Raises:
      UserDataError: a file, a row or a template is wrong; the message says which.
      FileNotFoundError: a file is not there.
    """
    made = _ranked if self.dataset.rank else _generated
    return made(self.dataset, self.template, self.read(self.dataset, split))

  def whole_dataset(
    self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
  ) -> tf.data.Dataset:
    """Rows in the order of the files."""
    found = self.rows(split)
    fields = ranked_options.QUESTION if self.dataset.rank else GENERATED_FIELDS
    dataset = tf.data.Dataset.from_generator(lambda: iter(found), output_signature=dict(fields))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(found)))
    if shard_info is not None and shard_info.num_shards > 1:
      dataset = dataset.shard(shard_info.num_shards, shard_info.index)
    return dataset.shuffle(max(1, len(found)), seed=seed) if shuffle else dataset

  def whole_count(self, split: str) -> int:
    """Rows of the split; reads the files."""
    return len(self.rows(split))

  def paths(self, split: str) -> list[epath.Path]:
    """Files of a split; see `Dataset.paths`."""
    return self.dataset.paths(split)

  def whole_shards(self, split: str) -> list[str]:
    """One shard, whatever the number of files."""
    return [f'{self.dataset.name} ({len(self.dataset.paths(split))} files)']


class _RowError(ValueError):
  """What is wrong with a row: what was expected, and what it has."""

  def __init__(self, expected: str, got: str = ''):
    super().__init__(expected, got)
    self.expected, self.got = expected, got


def _of_each(
  dataset: Dataset, rows: Sequence[Located], make: Callable[[Dataset, Mapping[str, Any]], T]
) -> list[T]:
  """What `make` gives of every row; of the rows that are wrong one message says the first ones."""
  found, wrong, said = [], [], ''
  for place, row in rows:
    try:
      found.append(make(dataset, row))
    except _RowError as error:
      got = f'got {error.got}' if error.got else ''
      same = bool(got) and error.expected == said
      wrong.append(f'{place}: ' + ', '.join(filter(None, ['' if same else error.expected, got])))
      said = error.expected
  if not wrong:
    return found
  lines = wrong[:_NAMED_ROWS]
  if len(wrong) > len(lines):
    lines.append(f'and {len(wrong) - len(lines):,} more of {len(rows):,} rows')
  raise UserDataError(f'data set {dataset.name!r}, ' + '\n  '.join(lines))


def _language(dataset: Dataset, row: Mapping[str, Any]) -> str:
  """ISO 639-3 of a row; '' where nothing says its language."""
  code = dataset.language or str(row.get(dataset.language_column) or '')
  if language_codes.is_unsaid(code):
    return ''
  try:
    return language_codes.resolve(code).code
  except language_codes.UnknownLanguageError as error:
    raise _RowError(str(error)) from error


def _languages(dataset: Dataset, rows: Sequence[Located]) -> list[str]:
  column = dataset.language_column
  if column and rows and not any(column in row for _, row in rows):
    place, row = rows[0]
    raise UserDataError(
      f'data set {dataset.name!r}, {place}: no column {column!r} (language_column) in any row, '
      f'only {sorted(row)}'
    )
  return _of_each(dataset, rows, _language)


def _identifier(place: str, row: Mapping[str, Any]) -> str:
  return str(row['id']) if row.get('id') not in (None, '') else place


def _ranked(
  dataset: Dataset, template: PromptTemplate | None, located: Iterable[Located]
) -> list[dict[str, Any]]:
  rows = list(located)
  asked = list(_questions(dataset, template, rows))
  languages = _languages(dataset, rows)
  return [
    {
      **question._asdict(),
      'id': _identifier(*rows[number]),
      'language': languages[number],
    }
    for number, question in asked
  ]


def _questions(
  dataset: Dataset, template: PromptTemplate | None, rows: Sequence[Located]
) -> Iterator[tuple[int, ranked_prompts.Question]]:
  if template is None:
    yield from enumerate(_of_each(dataset, rows, _from_columns))
    return
  limit = dataset.max_characters or ranked_prompts.PRINTED_CHARACTERS
  try:
    yield from ranked_prompts.questions(template, rows, seed=dataset.seed, max_characters=limit)
  except ranked_prompts.OptionProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {error}') from error
  except templates.TemplateProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {dataset.templates}: {error}') from error


def _options(value: Any) -> Any:
  """A list of options; a cell of a CSV has it as JSON, or with promptsource's mark between them."""
  if not isinstance(value, str):
    return value
  if value.lstrip().startswith('['):
    try:
      return json.loads(value)
    except ValueError:
      return value
  return [option.strip() for option in value.split('|||')]


def _label(value: Any) -> int:
  """An index, as JSON, spreadsheets and pandas write it: 1, '1', 1.0, '1.0'; -1 of what is none."""
  try:
    number = -1.0 if isinstance(value, bool) else float(value)
  except (TypeError, ValueError):
    return -1
  return int(number) if number.is_integer() else -1


def _from_columns(dataset: Dataset, row: Mapping[str, Any]) -> ranked_prompts.Question:
  del dataset
  inputs: Any = row.get('inputs')
  options: Any = _options(row.get('options'))
  index = _label(row.get('label'))
  sound = (
    isinstance(inputs, str)
    and bool(inputs.strip())
    and isinstance(options, list)
    and len(options) > 1
    and all(isinstance(option, str) and option.strip() for option in options)
  )
  if not sound or not 0 <= index < len(options):
    raise _RowError(
      'with `rank` and without `templates` the columns must be inputs (a text), options (two texts '
      'or more: a list, or in a cell of CSV \'["a", "b"]\' or \'a ||| b\') and label (the index '
      'of the right one, from 0)',
      f'{row!r:.200}',
    )
  return ranked_prompts.Question(inputs, options, index)


def _generated(
  dataset: Dataset, template: PromptTemplate | None, located: Iterable[Located]
) -> list[dict[str, Any]]:
  rows = list(located)
  pairs = list(_pairs(dataset, template, rows))
  languages = _languages(dataset, rows)
  right = _of_each(dataset, rows, _references) if dataset.references else []
  made = []
  for number, inputs, target in pairs:
    texts = [] if target is None else [target]
    found = right[number] if dataset.references else texts
    made.append(
      {
        'inputs': inputs,
        'targets': found[0] if found else '',
        'references': found,
        'id': _identifier(*rows[number]),
        'language': languages[number],
      }
    )
  needing = [name for name in dataset.metrics if answer_metrics.needs_references(name)]
  if needing and made and not any(row['references'] for row in made):
    raise UserDataError(
      f'data set {dataset.name!r}, {rows[0][0]}: no row has a right answer, which the metrics '
      f'{needing} need: give targets or `references`, or take {[*answer_metrics.FREE]}'
    )
  return made


def _pairs(
  dataset: Dataset, template: PromptTemplate | None, rows: Sequence[Located]
) -> Iterator[tuple[int, str, str | None]]:
  if template is None:
    for number, (inputs, target) in enumerate(_of_each(dataset, rows, _columns)):
      yield number, inputs, target
    return
  rendered = templates.render(
    [template], [row for _, row in rows], seed=dataset.seed, max_characters=dataset.max_characters
  )
  try:
    for number, _, pair in rendered:
      if pair is not None:
        yield number, *pair
  except templates.RowTemplateError as error:
    raise UserDataError(
      f'data set {dataset.name!r}, {rows[error.number][0]}: {dataset.templates}, template '
      f'{error.template!r}: {error.detail}'
    ) from error
  except templates.TemplateProblemError as error:
    raise UserDataError(f'data set {dataset.name!r}, {dataset.templates}: {error}') from error


def _columns(dataset: Dataset, row: Mapping[str, Any]) -> tuple[str, str | None]:
  """Inputs and targets; None of a row without any."""
  inputs, target = row.get('inputs'), row.get('targets')
  if not isinstance(inputs, str) or not isinstance(target, str | None):
    raise _RowError(
      'without `templates` the columns must be inputs and targets (or the column of `references`)',
      f'{row!r:.200}',
    )
  if not inputs.strip():
    raise _RowError('expected a text that is not empty in inputs', f'{row!r:.200}')
  return inputs, target


def _references(dataset: Dataset, row: Mapping[str, Any]) -> list[str]:
  value = row.get(dataset.references)
  found = [value] if isinstance(value, str) else value
  if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
    got = f'{value!r:.80}' if dataset.references in row else f'only {sorted(row)}'
    raise _RowError(
      f'expected a text or a list of texts in {dataset.references!r} (references)', got
    )
  return [text for text in found if text.strip()]


def is_one(dataset: Dataset) -> bool:
  """Whether a row of a table is a benchmark."""
  return dataset.rank or bool(dataset.metrics)


def add(dataset: Dataset, read: Reader, content: str, taken: Callable[[str], bool]) -> list[str]:
  """Registers the tasks and mixtures of a benchmark; a second time, its new definition.

  Args:
    dataset: a row for which `is_one`.
    read: gives places and columns of a split's rows.
    content: a digest of what decides the tasks beside the data.
    taken: whether a name belongs to another task or mixture.

  Returns:
    Names of the tasks, then of the mixtures.

  Raises:
    UserDataError: a name is taken, or a template has no options.
    templates.TemplateProblemError, FileNotFoundError: the templates cannot be read.
  """
  prompts: list[PromptTemplate | None] = [*dataset.prompts()] or [None]
  if dataset.rank and (bare := [p.name for p in prompts if p and p.answer_choices is None]):
    raise UserDataError(
      f'data set {dataset.name!r}, {dataset.templates}: rank: the templates {bare} have no '
      'answer_choices, which are the options; name others in template_names'
    )
  remove(dataset.name)
  split = 'test' if 'test' in dataset.files else [*dataset.files][-1]
  tasks = [task for prompt in prompts for task in _tasks(dataset, prompt, split)]
  names = [task.name for task in tasks]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise UserDataError(f'data set {dataset.name!r}: templates whose names give one task: {twice}')
  for name in (dataset.name, *names):
    if taken(name):
      raise UserDataError(f'there is a task or mixture {name!r} already; take another name')
  for prompt in prompts:
    source = UserQuestions(dataset, read, prompt, content)
    for task in _tasks(dataset, prompt, split):
      _register(task, source, dataset)
  _TASKS[dataset.name] = names
  parts: dict[str, list[str]] = defaultdict(list)
  for task in tasks:
    ending = ranked_options.ENDINGS.get(task.protocol, '')
    parts[f'{dataset.name}{ending}'].append(task.name)
  for name, members in parts.items():
    seqio.MixtureRegistry.add(name, members, default_rate=1.0)
  _MIXTURES[dataset.name] = list(parts)
  return [*names, *parts]


def names(name: str) -> list[str]:
  """Tasks and mixtures that `add` registered for a data set; [] of others."""
  return [*_TASKS.get(name, []), *_MIXTURES.get(name, [])]


def remove(name: str) -> None:
  """Removes what `add` registered for a data set."""
  for mixture in _MIXTURES.pop(name, []):
    seqio.MixtureRegistry.remove(mixture)
  for task in _TASKS.pop(name, []):
    seqio.TaskRegistry.remove(task)
    eval_tasks.remove(task)


def _tasks(dataset: Dataset, prompt: PromptTemplate | None, split: str) -> list[EvalTask]:
  language = language_codes.resolve(dataset.language).code if dataset.language else ''
  name = prompt.name if prompt else ''
  stem = '.'.join(filter(None, [dataset.name, language, eval_tasks.slug(name)]))
  if stem == dataset.name:  # the mixture's
    stem = f'{stem}.all'
  if dataset.rank:
    return [
      EvalTask(
        f'{stem}{ending}',
        dataset.name,
        language,
        name,
        protocol,
        ranked_options.PUBLISHED[protocol],
        split,
      )
      for protocol, ending in ranked_options.ENDINGS.items()
    ]
  metric = answer_metrics.published(dataset.metrics[0])
  return [EvalTask(stem, dataset.name, language, name, eval_tasks.GENERATED, metric, split)]


def _register(task: EvalTask, source: UserQuestions, dataset: Dataset) -> None:
  if task.protocol != eval_tasks.GENERATED:
    ranked_options.add(task, source)
    return
  seqio.TaskRegistry.add(
    task.name,
    source=source,
    preprocessors=list(features.TOKENIZE_AND_APPEND_EOS),
    postprocess_fn=references.postprocess,
    metric_fns=[
      references.together(
        [answer_metrics.function(name) for name in dataset.metrics], dataset.metrics
      )
    ],
    output_features=features.OUTPUT_FEATURES,
  )
  eval_tasks.add(task)
