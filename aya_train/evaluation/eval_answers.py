"""Answers to all examples of a task, batch after batch, each kept as soon as it is there."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import seqio

from aya_train import batch_progress, hosts, model_answers, partitioning, watchdog
from aya_train.evaluation import eval_rows
from aya_train.objectives import seq2seq
from aya_train.tasks import eval_tasks

_SAME = 1e-6  # of a log-probability: what float32 cannot tell apart


class Records(Protocol):
  """Where answers go; see `answer_file.AnswerFile`, and `InMemory`."""

  done: frozenset[int]

  def write(self, records: Sequence[Mapping[str, Any]]) -> None:
    """Adds records of questions by their `index`."""

  def records(self) -> Iterator[dict[str, Any]]:
    """All records in the order of the questions; on the first host."""


class InMemory:
  """Answers that need not outlive the process."""

  def __init__(self) -> None:
    self.done: frozenset[int] = frozenset()
    self._records: list[Mapping[str, Any]] = []

  def write(self, records: Sequence[Mapping[str, Any]]) -> None:
    if hosts.is_first():
      self._records += records

  def records(self) -> Iterator[dict[str, Any]]:
    yield from map(dict, sorted(self._records, key=lambda record: record['index']))


def generate(
  task: seqio.Task,
  rows: eval_rows.Rows,
  answerer: model_answers.Answerer,
  lengths: Mapping[str, int],
  kept: Records,
  between: Callable[[], None],
  title: str,
) -> None:
  """Generates an answer to each row that has none yet.

  Args:
    task: whose rows they are.
    rows: the examples.
    answerer: the model.
    lengths: of inputs and targets; these bound the answers.
    kept: gets a `eval_tasks.Prediction` of each, with `index` that of the row.
    between: called before each batch, by every host.
    title: for the lines about progress.
  """
  vocabulary = task.output_features['targets'].vocabulary
  # Short inputs together, so that few batches are as wide as the longest row.
  todo = [i for i in range(len(rows.rows)) if i not in kept.done]
  todo.sort(key=lambda i: len(rows.rows[i].inputs))
  progress = batch_progress.BatchProgress(title, len(rows.rows), len(kept.done))
  for batch in batched(todo, answerer.batch_size):
    between()
    answers = answerer.generate(
      [rows.rows[i].inputs for i in batch],
      batch,
      limit=lengths['inputs'],
      max_decode_length=lengths['targets'],
    )
    kept.write(
      [
        _generated(task.name, i, rows.rows[i], answer, vocabulary)
        for i, answer in zip(batch, answers, strict=True)
      ]
    )
    progress.add(len(batch))
    watchdog.beat()


def score(
  task: seqio.Task,
  rows: eval_rows.Rows,
  answerer: model_answers.Answerer,
  lengths: Mapping[str, int],
  kept: Records,
  between: Callable[[], None],
  title: str,
) -> None:
  """Log-likelihoods of the targets of each question that has none yet; arguments as `generate`.

  Options that are equal are scored once, so that they are equal; inputs are encoded once for all of
  their options. The `index` of a `eval_tasks.Prediction` is that of the question.
  """
  todo = [k for k in range(len(rows.questions)) if k not in kept.done]
  parts = {k: _parts(rows, k) for k in todo}
  todo.sort(key=lambda k: max(part.scored.size for part in parts[k]))
  progress = batch_progress.BatchProgress(title, len(rows.questions), len(kept.done))
  for questions in batched(todo, answerer.batch_size):
    between()
    scores: dict[int, float] = {}
    asked = [part for k in questions for part in parts[k]]
    for batch in batched(asked, answerer.batch_size):
      found = answerer.score([part.scored for part in batch], limit=lengths['inputs'])
      for part, values in zip(batch, found, strict=True):
        for same, value in zip(part.rows, values, strict=True):
          scores |= dict.fromkeys(same, value)
    kept.write([_ranked(task.name, rows, k, scores) for k in questions])
    progress.add(len(questions))
    watchdog.beat()


def decode_prompts(
  model: seq2seq.EncoderDecoderModel,
  params: Any,
  prompts: Sequence[str],
  *,
  lengths: Mapping[str, int],
  batch_size: int,
  partitioner: partitioning.Partitioner,
  seed: int = 0,
) -> list[list[int]]:
  """Answers to texts as ids without padding, cut after the end of sequence.

  Args:
    model, params: the model.
    prompts: texts; longer than `lengths['inputs']` tokens they are cut, end of sequence kept.
    lengths: 'inputs' and 'targets' in tokens.
    batch_size: prompts at a time.
    partitioner: mesh.
    seed: for sampling.

  Raises:
    finiteness.NonFiniteError: the model gives an answer no finite log-likelihood.
  """
  vocabulary = model.input_vocabulary
  rows = [
    np.array([*vocabulary.encode(text)[: lengths['inputs'] - 1], vocabulary.eos_id], np.int32)
    for text in prompts
  ]
  answerer = model_answers.ModelAnswers(model, partitioner, batch_size, seed)
  answerer.params = params
  answers: list[list[int]] = []
  for numbers in batched(range(len(rows)), batch_size):
    found = answerer.generate(
      *([rows[i] for i in numbers], numbers),
      limit=lengths['inputs'],
      max_decode_length=lengths['targets'],
    )
    answers += [list(answer.tokens) for answer in found]
  return answers


class _Part:
  """Some targets of a question, and of each the rows that have it."""

  def __init__(self, scored: model_answers.Scored, rows: Sequence[Sequence[int]]):
    self.scored, self.rows = scored, rows


def _parts(rows: eval_rows.Rows, question: int) -> list[_Part]:
  by_inputs: dict[bytes, dict[bytes, list[int]]] = {}
  for i in rows.questions[question]:
    row = rows.rows[i]
    by_inputs.setdefault(row.inputs.tobytes(), {}).setdefault(row.targets.tobytes(), []).append(i)
  found = []
  for by_targets in by_inputs.values():
    same = list(by_targets.values())
    first = rows.rows[same[0][0]]
    at = 0
    for scored in model_answers.in_rows(first.inputs, [rows.rows[s[0]].targets for s in same]):
      found.append(_Part(scored, same[at : at + len(scored.targets)]))
      at += len(scored.targets)
  return found


def _generated(
  task: str, index: int, row: eval_rows.Row, answer: model_answers.Answer, vocabulary: Any
) -> dict[str, Any]:
  ids = [int(token) for token in answer.tokens]
  return eval_tasks.Prediction(
    task=task,
    index=index,
    inputs=row.inputs_text,
    targets=row.references,
    prediction=vocabulary.decode(ids[:-1] if ids and ids[-1] == vocabulary.eos_id else ids),
    log_likelihood=answer.score,
    tokens=ids,
    fields=row.fields,
  ).to_dict()


def _ranked(
  task: str, rows: eval_rows.Rows, question: int, scores: Mapping[int, float]
) -> dict[str, Any]:
  numbers = rows.questions[question]
  options = [rows.rows[i] for i in numbers]
  values = [scores[i] for i in numbers]
  first = options[0]
  if not rows.is_ranked:
    return eval_tasks.Prediction(
      *(task, question, first.inputs_text),
      targets=first.references,
      log_likelihood=values[0],
      fields=first.fields,
    ).to_dict()
  best = int(np.argmax(values))
  right = [k for k, option in enumerate(options) if option.is_correct]
  return eval_tasks.Prediction(
    task=task,
    index=question,
    inputs=options[best].inputs_text,
    targets=[options[k].targets_text for k in right],
    prediction=options[best].targets_text,
    options=[option.targets_text for option in options],
    option_scores=values,
    label=right[0] if right else None,
    log_likelihood=values[best],
    fields=first.fields,
  ).to_dict()


def generated_outputs(
  records: Iterator[Mapping[str, Any]], length: int
) -> tuple[list[tuple[int, list[int]]], list[float]]:
  """Tokens of all answers, padded to `length`, by row, and their log-likelihoods: as SeqIO's."""
  tokens, scores = [], []
  for record in records:
    ids = list(record.get('tokens', ()))
    tokens.append((record['index'], ids + [0] * (length - len(ids))))
    scores.append(record['log_likelihood'])
  return tokens, scores


def scored_outputs(
  records: Iterator[Mapping[str, Any]], rows: eval_rows.Rows
) -> list[tuple[int, float]]:
  """Log-likelihoods by row, as SeqIO's `score_fn` gives them."""
  found = []
  for record in records:
    values = record['option_scores'] if rows.is_ranked else [record['log_likelihood']]
    found += list(zip(rows.questions[record['index']], values, strict=True))
  return found


def notes_of(
  records: Iterator[Mapping[str, Any]], lengths: Mapping[str, int], *, is_ranked: bool, eos_id: int
) -> list[str]:
  """What is to be known of the answers themselves: ties, and answers that were cut.

  Args:
    records: of `generate` or `score`.
    lengths: of inputs and targets.
    is_ranked: whether options were.
    eos_id: the id that ends an answer.
  """
  total = ties = unended = empty = 0
  for record in records:
    total += 1
    if is_ranked:
      best = sorted(record['option_scores'], reverse=True)[:2]
      ties += len(best) == 2 and math.isclose(*best, rel_tol=_SAME, abs_tol=_SAME)
    elif 'tokens' in record or 'option_scores' not in record:
      tokens = record.get('tokens', ())
      unended += len(tokens) >= lengths['targets'] and tokens[-1] != eos_id
      empty += not str(record.get('prediction', '')).strip()
  said = []
  if ties:
    said.append(f'{ties} of {total} questions: the best scores are equal, the first option counts')
  if unended:
    said.append(f'{unended} of {total} answers reached {lengths["targets"]} tokens without an end')
  if empty:
    said.append(f'{empty} of {total} answers are empty')
  return said


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
  """Consecutive slices of at most `size` items."""
  for start in range(0, len(items), size):
    yield items[start : start + size]
