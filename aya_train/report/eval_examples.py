"""A few answers in every script, for people to look at."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence

from aya_train.report import eval_boards, eval_figures, scored_answers
from aya_train.tasks import eval_tasks
from aya_train.tasks.languages import aya101, language_codes, writing_direction
from aya_train.tasks.metrics import scripts

A_SCRIPT = 4
_LONGEST = 700


@dataclasses.dataclass(frozen=True)
class Text:
  """A text of an example: its lines, and whether it was cut for the page."""

  lines: Sequence[writing_direction.Line]
  cut: bool = False


@dataclasses.dataclass(frozen=True)
class Answer:
  """What one evaluation answered.

  Attributes:
    evaluation: its name.
    text: the answer.
    metric, score: its figure, 0 to 100, None where it has none alone.
    right: whether it is the right one, None where answers are right in part.
  """

  evaluation: str
  text: Text
  metric: str
  score: float | None
  right: bool | None


@dataclasses.dataclass(frozen=True)
class Example:
  """One example of one task.

  Attributes:
    script: ISO 15924, '' if unknown.
    language: in words.
    task, index: which.
    inputs: what the models got.
    options: of a ranked task.
    references: right answers.
    answers: of every evaluation that has it.
  """

  script: str
  language: str
  task: str
  index: int
  inputs: Text
  options: Sequence[Text]
  references: Sequence[Text]
  answers: Sequence[Answer]


def pick(boards: Sequence[eval_boards.Board], a_script: int = A_SCRIPT) -> list[Example]:
  """Examples by script: of other languages and other benchmarks first, right and wrong alike."""
  offered: dict[str, list[tuple[str, eval_tasks.Prediction, str]]] = collections.defaultdict(list)
  seen: set[tuple[str, int]] = set()
  for board in boards:
    for name, task in board.tasks.items():
      for place, prediction in enumerate(task.answers.kept if task.answers else ()):
        if (name, prediction.index) in seen or place >= scored_answers.KEPT:
          continue
        seen.add((name, prediction.index))
        language, script = _language(task.result.about, prediction)
        offered[script].append((name, prediction, language))
  found = []
  for script in sorted(offered):
    for name, prediction, language in _varied(offered[script], a_script):
      found.append(_example(script, language, name, prediction, boards))
  return found


def _language(task: eval_tasks.EvalTask, prediction: eval_tasks.Prediction) -> tuple[str, str]:
  """ISO 639-3 code and script of a row; as it is written where no table has it.

  Of a row that says no language the script is that of its letters.
  """
  code = task.language or str(prediction.fields.get('language') or '')
  if language_codes.is_unsaid(code):
    return '', scripts.main(prediction.inputs)
  own = task.name.removeprefix(f'{task.benchmark}.').partition('.')[0]  # 'arb_Latn' in Belebele
  try:
    language = language_codes.resolve(code).code
  except language_codes.UnknownLanguageError:
    language = code
  return language, eval_figures.script_of(language, own if '_' in own else code)


Offer = tuple[str, eval_tasks.Prediction, str]


def _varied(offers: Sequence[Offer], count: int) -> Iterator[Offer]:
  """Some of the offers: each time one whose language, benchmark and place were picked least."""
  left = list(offers)
  picked: collections.Counter[str] = collections.Counter()
  for _ in range(min(count, len(left))):

    def often(offer: Offer) -> tuple[int, int, int, int]:
      name, prediction, language = offer
      benchmark = name.partition('.')[0]
      return (
        picked[f'language {language}'],
        picked[f'benchmark {benchmark}'],
        picked[f'index {prediction.index}'],
        prediction.index,
      )

    best = min(left, key=often)
    left.remove(best)
    name, prediction, language = best
    picked.update([f'language {language}', f'benchmark {name.partition(".")[0]}'])
    picked.update([f'index {prediction.index}'])
    yield best


def _example(
  script: str,
  language: str,
  name: str,
  prediction: eval_tasks.Prediction,
  boards: Sequence[eval_boards.Board],
) -> Example:
  answers = []
  for board in boards:
    task = board.tasks.get(name)
    if task is None or task.answers is None:
      continue
    for p in task.answers.kept:
      if p.index == prediction.index:
        score = scored_answers.score_of(task.answers, p)
        whole = score is not None and scored_answers.is_hit(task.metric)
        right = score == 100 if whole else None
        text = _text(p.prediction, language, script)
        answers.append(Answer(board.evaluation.name, text, task.metric, score, right))
  return Example(
    script,
    aya101.described(language) if language else 'language not stated',
    name,
    prediction.index,
    _text(prediction.inputs, language, script),
    [_text(option, language, script) for option in prediction.options],
    [_text(str(target), language, script) for target in prediction.targets][:4],
    answers,
  )


def _text(text: str, language: str, script: str) -> Text:
  """A text, its middle left out if it is long: prompts ask at their end."""
  cut = len(text) > _LONGEST
  if cut:
    half = _LONGEST // 2
    text = f'{text[:half]} […] {text[-half:]}'
  return Text(writing_direction.lines(text, language, script), cut)
