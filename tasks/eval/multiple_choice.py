"""Questions of four lettered options as lm-evaluation-harness words them, with examples before."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from aya_train.tasks import ranked_options
from aya_train.tasks.eval import eval_mixtures, eval_source, row_columns
from aya_train.tasks.eval.row_columns import EvalDataError, Record
from aya_train.tasks.eval_tasks import EvalTask

LETTERS = ('A', 'B', 'C', 'D')
FIELDS: Mapping[str, tf.TensorSpec] = {**ranked_options.QUESTION, 'subject': eval_source.STRING}


class Item(NamedTuple):
  """A question: `group` is what its examples are taken from, `subset` a part that it belongs to."""

  text: str
  label: int
  id: str
  subject: str = ''
  group: str = ''
  subset: str = ''


def worded(question: str, options: Sequence[str]) -> str:
  """'QUESTION\\nA. ...\\nD. ...\\nAnswer:'."""
  lines = [f'{letter}. {option}' for letter, option in zip(LETTERS, options, strict=True)]
  return '\n'.join([question.strip(), *lines, 'Answer:'])


_OTHER_LETTERS = (  # in which SEA-HELM's copies write answers in other scripts
  'ကခဂဃ',
  'กขคง',
)


def letter(record: Record, column: str, where: str) -> int:
  """Index of an answer 'A' to 'D', or of a number from 0; EvalDataError for another.

  Burmese and Thai letters in their order count as well.
  """
  value = record.get(column)
  if isinstance(value, str):
    word = value.strip()
    for letters in _OTHER_LETTERS:
      if len(word) == 1 and word in letters:
        return letters.index(word)
    return LETTERS.index(row_columns.choice(record, column, where, LETTERS))
  return row_columns.integer(record, column, where, range(4))


def options_of(record: Record, where: str, columns: Sequence[str]) -> list[str]:
  """Four options, which may be numbers, and one of which may be blank.

  Raises:
    EvalDataError: a column is missing.
  """
  if missing := [column for column in columns if record.get(column) is None]:
    raise EvalDataError(f'{where}: no {missing} among {sorted(map(str, record))}')
  return [str(record[column]) for column in columns]


def examples(shots: Iterable[Item], item: Item, count: int) -> list[Item]:
  """The first examples of a question's group, in their order; of all where it has none."""
  shots = list(shots)
  own = [shot for shot in shots if shot.group == item.group]
  return (own or shots)[:count]


def questions(
  split: str,
  *,
  read: Callable[[str, str, str], Iterable[Item]],
  code: str,
  language: str,
  protocol: str,
  shots: int,
  subset: str = '',
) -> Iterator[dict[str, Any]]:
  """Questions of a benchmark in one language; see `FIELDS`.

  Args:
    split: of the SeqIO task.
    read: (split, code, protocol) -> questions; 'dev' is the split of the examples.
    code: of the language, as the release has it.
    language: ISO 639-3.
    protocol: of the task; groups of examples may depend on it.
    shots: examples before each question.
    subset: only questions of it; '' for all.

  Raises:
    EvalDataError: there are less examples than `shots`, or no question of the subset.
  """
  found = [item for item in read(split, code, protocol) if subset in ('', item.subset)]
  if not found:
    raise EvalDataError(f'no question of {subset or "any subset"!r} in {split!r} of {code!r}')
  known = list(read('dev', code, protocol)) if shots else []
  if len(known) < shots:
    raise EvalDataError(f'{len(known)} examples in {code!r}, {shots} are needed')
  for item in found:
    before = [f'{shot.text} {LETTERS[shot.label]}\n\n' for shot in examples(known, item, shots)]
    yield {
      'inputs': ''.join([*before, item.text]),
      'options': list(LETTERS),
      'label': item.label,
      'id': item.id,
      'language': language,
      'subject': item.subject,
    }


def add(
  benchmark: str,
  read: Callable[[str, str, str], Iterable[Item]],
  languages: Mapping[str, str],
  *,
  shots: int,
  splits: Sequence[str] = ('test',),
  subsets: Sequence[str] = (),
  name_codes: bool = False,
) -> list[EvalTask]:
  """Registers tasks BENCHMARK.LANG, those of subsets, with '.harness' too, and their mixtures.

  Args:
    benchmark: its name.
    read: see `questions`.
    languages: code of the release -> ISO 639-3.
    shots: examples before each question.
    splits: that the release has, the published one first.
    subsets: parts that have tasks BENCHMARK.LANG.SUBSET of their own.
    name_codes: the code of the release stands after LANG in names, and is the subset: for releases
      with several varieties of a language.
  """
  tasks = []
  for code, language in languages.items():
    for subset in ('', *subsets):
      for protocol, ending in ranked_options.ENDINGS.items():
        source = eval_source.EvalSource(
          functools.partial(
            questions,
            read=read,
            code=code,
            language=language,
            protocol=protocol,
            shots=shots,
            subset=subset,
          ),
          FIELDS,
          splits,
        )
        part = subset or (code if name_codes else '')
        task = EvalTask(
          '.'.join(filter(None, [benchmark, language, part])) + ending,
          benchmark,
          language,
          '',
          protocol,
          ranked_options.PUBLISHED[protocol],
          splits[0],
          subset=part,
        )
        tasks.append(ranked_options.add(task, source))
  eval_mixtures.add(tasks)
  return tasks
