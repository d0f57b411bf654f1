"""`aya-train infer`: answers of a checkpoint to prompts of one's own, or to a task's inputs."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import seqio
from etils import epath

from aya_train import destinations, hosts, infer_eval, partitioning
from aya_train.checkpoint import answering, formats
from aya_train.data import availability, feature_converters, task_examples, task_registry
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import storage
from aya_train.tasks.building import text_files

logger = logging.getLogger(__name__)


def infer(
  *,
  model: seq2seq.EncoderDecoderModel,
  checkpoint_path: str,
  partitioner: partitioning.Partitioner,
  task_feature_lengths: Mapping[str, int],
  output_file: str,
  batch_size: int = 32,
  prompts_file: str | None = None,
  prompts: Sequence[str] = (),
  mixture_or_task_name: str | None = None,
  split: str = 'test',
  num_examples: int | None = None,
  seed: int = 0,
) -> epath.Path:
  """Decodes prompts and writes one JSON object a line: `inputs`, `prediction`, `targets` if known.

  Exactly one of `prompts`, `prompts_file` (a text file, one prompt a line) and
  `mixture_or_task_name` says what to answer. Of a task the tokens are decoded that its
  preprocessors give, as `eval` does; `inputs` is `inputs_pretokenized` if it has it.

  Args:
    model: the model, with its way of decoding.
    checkpoint_path: weights, of any format of checkpoint/formats.py.
    partitioner: mesh.
    task_feature_lengths: tokens of inputs and targets; longer inputs are cut.
    output_file: JSON-lines file to write.
    batch_size: prompts decoded at a time.
    prompts, prompts_file, mixture_or_task_name: what to answer.
    split, num_examples: which examples of the task.
    seed: for sampling.

  Raises:
    ValueError: none or several of the three were given, or they are empty; the weights are of
      another network or vocabulary.
    FileNotFoundError: no checkpoint, no prompts file, or the task's data is not there.
    OSError: the output file cannot be written.
  """
  if isinstance(prompts, str):  # ('x') is a text, ('x',) a tuple
    prompts = (prompts,)
  if sum(map(bool, (prompts, prompts_file, mixture_or_task_name))) != 1:
    raise ValueError(
      'give exactly one of PROMPTS, PROMPTS_FILE and MIXTURE_OR_TASK_NAME, got '
      f'{(prompts, prompts_file, mixture_or_task_name)}'
    )
  partitioner.check_batch_size(batch_size)
  model.check_vocabulary()
  source = formats.detect(checkpoint_path)
  formats.check(source, objective.parameter_axes(model)[0], model)
  trained, model = model, answering.adapted(model, source)
  with hosts.together():
    if jax.process_index() == 0:
      destinations.check_file(output_file, 'OUTPUT_FILE')
  feature_converters.check_lengths(task_feature_lengths)
  references: Sequence[str | None] = []
  tokens: Sequence[Sequence[int]] | None = None
  if mixture_or_task_name:
    found = task_examples_of(mixture_or_task_name, split, num_examples, task_feature_lengths)
    tokens, prompts, references = zip(*found, strict=True) if found else ((), (), ())
  elif prompts_file:
    lines = text_files.lines(text_files.read(prompts_file))
    prompts = [line for line in lines if line.strip()]
  if not prompts:
    raise ValueError(f'no prompts in {prompts_file or mixture_or_task_name}')
  params = formats.read_for(trained, partitioner, source)
  started = time.monotonic()
  if tokens is None:
    tokens = infer_eval.encode_prompts(model, list(prompts), task_feature_lengths)
  answers = infer_eval.decode_tokens(
    model,
    params,
    tokens,
    lengths=task_feature_lengths,
    batch_size=batch_size,
    partitioner=partitioner,
    seed=seed,
  )
  path = epath.Path(output_file)
  if jax.process_index() == 0:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for i, (prompt, ids) in enumerate(zip(prompts, answers, strict=True)):
      ids = ids[:-1] if ids and ids[-1] == model.answer_end else ids
      record = {'inputs': prompt, 'prediction': model.output_vocabulary.decode(ids)}
      records.append({**record, 'targets': references[i]} if references else record)
    text = ''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records)
    data = text.encode('utf-8', 'backslashreplace')
    if path.exists() and not path.is_file():  # such as /dev/stdout
      path.write_bytes(data)
    else:
      storage.write_atomically(path, data)
  rate = len(answers) / (time.monotonic() - started)
  logger.info('wrote %d answers to %s (%.1f a second)', len(answers), path, rate)
  return path


_SPAN = 20_000  # examples of a task among which prompts are picked


class TaskExample(NamedTuple):
  """An example of a task as a model gets it, and as people read it.

  Attributes:
    tokens: ids of the inputs as the task gives them, cut to their length.
    inputs, targets: `inputs_pretokenized` and `targets_pretokenized`, or the tokens as text where
      there are none.
  """

  tokens: list[int]
  inputs: str
  targets: str


def picked_texts(name: str, split: str, count: int) -> list[tuple[str, str]]:
  """Inputs and targets of a few examples of a task or mixture, at even distances.

  Of a mixture each task gives as many, or every n-th gives one. Of a large task the first 20,000
  examples count.

  Args:
    name, split: as `task_examples_of`.
    count: examples wanted; fewer if there are not as many.

  Raises:
    ValueError, FileNotFoundError: see `task_examples_of`.
  """
  tasks = availability.tasks(name, split, None)
  if len(tasks) > count:
    tasks = [tasks[i * len(tasks) // count] for i in range(count)]
  each = -(-count // len(tasks))
  pairs: list[tuple[str, str]] = []
  for task in tasks:
    found = _examples(task, split, _SPAN) if task_examples.has_rows(task, split, 1) else []
    picked = [found[i * len(found) // each] for i in range(min(each, len(found)))]
    pairs += [(example.inputs, example.targets) for example in picked]
  return pairs[:count]


def task_examples_of(
  name: str, split: str, num_examples: int | None, lengths: Mapping[str, int] | None = None
) -> list[TaskExample]:
  """Examples of a task, in the order of the data set, as `eval` decodes them.

  Args:
    name: of a task or mixture; its tasks without the split or without rows in it are left out.
    split: to read, such as 'test' or 'train[:10]'.
    num_examples: of each task, None for all.
    lengths: of the features in tokens; None: nothing is cut.

  Raises:
    ValueError: no task has the split, or one has no feature `inputs`.
    FileNotFoundError: data is missing.
  """
  found: list[TaskExample] = []
  for task in availability.tasks(name, split, None):
    task_registry.require_features(task, ('inputs',))
    if task_examples.has_rows(task, split, 1):
      found += _examples(task, split, num_examples, lengths)
  return found


def _examples(
  task: seqio.Task,
  split: str,
  num_examples: int | None,
  lengths: Mapping[str, int] | None = None,
) -> list[TaskExample]:
  examples = task.get_dataset(
    sequence_length=None if lengths is None else dict(lengths),
    split=split,
    shuffle=False,
    seed=infer_eval.PREPROCESSING_SEED,
  )
  found = []
  for example in examples.take(num_examples or -1).as_numpy_iterator():
    tokens = {side: _ids(example[side]) for side in ('inputs', 'targets') if side in example}
    texts = [_text(task, example, side, tokens) for side in ('inputs', 'targets')]
    found.append(TaskExample(tokens['inputs'], *texts))
  return found


def _ids(tokens: Any) -> list[int]:
  """The ids without the padding that a task with features of one static length puts at the end."""
  ids = [int(token) for token in tokens]
  while ids and ids[-1] == 0:
    ids.pop()
  return ids


def _text(
  task: seqio.Task, example: Mapping[str, Any], side: str, tokens: Mapping[str, list[int]]
) -> str:
  if isinstance(text := example.get(f'{side}_pretokenized'), bytes):
    return text.decode('utf-8')
  if side not in tokens:
    return ''
  vocabulary = task.output_features[side].vocabulary
  return vocabulary.decode([token for token in tokens[side] if token != vocabulary.eos_id])
