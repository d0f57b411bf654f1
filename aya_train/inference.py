"""`aya-train infer`: answers of a checkpoint to prompts of one's own, or to a task's inputs."""

import json
import logging
import time
from collections.abc import Mapping, Sequence

import jax
import seqio
from etils import epath

from aya_train import destinations, hosts, infer_eval, partitioning
from aya_train.checkpoint import answering, formats
from aya_train.data import availability, task_examples
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import storage

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
  `mixture_or_task_name` says what to answer.

  Args:
    model: the model, with its way of decoding.
    checkpoint_path: weights, of any format of checkpoint/formats.py.
    partitioner: mesh.
    task_feature_lengths: tokens of inputs and targets.
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
  references: Sequence[str | None] = []
  if mixture_or_task_name:
    pairs = task_texts(mixture_or_task_name, split, num_examples)
    prompts, references = [a for a, _ in pairs], [b for _, b in pairs]
  elif prompts_file:
    prompts = [line for line in epath.Path(prompts_file).read_text().splitlines() if line.strip()]
  if not prompts:
    raise ValueError(f'no prompts in {prompts_file or mixture_or_task_name}')
  params = formats.read_for(trained, partitioner, source)
  started = time.monotonic()
  answers = infer_eval.decode_prompts(
    model,
    params,
    list(prompts),
    lengths=task_feature_lengths,
    batch_size=batch_size,
    partitioner=partitioner,
    seed=seed,
  )
  path = epath.Path(output_file)
  if jax.process_index() == 0:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (prompt, ids) in enumerate(zip(prompts, answers, strict=True)):
      ids = ids[:-1] if ids and ids[-1] == model.answer_end else ids
      record = {'inputs': prompt, 'prediction': model.output_vocabulary.decode(ids)}
      lines.append({**record, 'targets': references[i]} if references else record)
    text = ''.join(json.dumps(x, ensure_ascii=False) + '\n' for x in lines)
    storage.write_atomically(path, text)
  rate = len(answers) / (time.monotonic() - started)
  logger.info('wrote %d answers to %s (%.1f a second)', len(answers), path, rate)
  return path


_SPAN = 20_000  # examples of a task among which prompts are picked


def picked_texts(name: str, split: str, count: int) -> list[tuple[str, str]]:
  """Inputs and targets of a few examples of a task or mixture, at even distances.

  Of a mixture each task gives as many, or every n-th gives one. Of a large task the first 20,000
  examples count.

  Args:
    name, split: as `task_texts`.
    count: examples wanted; fewer if there are not as many.

  Raises:
    ValueError, FileNotFoundError: see `task_texts`.
  """
  tasks = availability.tasks(name, split, None)
  if len(tasks) > count:
    tasks = [tasks[i * len(tasks) // count] for i in range(count)]
  each = -(-count // len(tasks))
  pairs: list[tuple[str, str]] = []
  for task in tasks:
    found = _texts_of(task, split, _SPAN) if task_examples.has_rows(task, split, 1) else []
    pairs += [found[i * len(found) // each] for i in range(min(each, len(found)))]
  return pairs[:count]


def task_texts(name: str, split: str, num_examples: int | None) -> list[tuple[str, str]]:
  """Inputs and targets of a task's examples as text, in the order of the data set.

  Args:
    name: of a task or mixture; its tasks without the split or without rows in it are left out.
    split: to read.
    num_examples: of each task, None for all.

  Raises:
    ValueError: no task has the split.
    FileNotFoundError: data is missing.
  """
  pairs: list[tuple[str, str]] = []
  for task in availability.tasks(name, split, None):
    if not task_examples.has_rows(task, split, 1):
      continue
    pairs += _texts_of(task, split, num_examples)
  return pairs


def _texts_of(task: seqio.Task, split: str, num_examples: int | None) -> list[tuple[str, str]]:
  pairs = []
  examples = task.get_dataset(sequence_length=None, split=split, shuffle=False)
  for example in examples.take(num_examples or -1).as_numpy_iterator():
    texts = (example.get(f'{side}_pretokenized', b'') for side in ('inputs', 'targets'))
    inputs, targets = (text.decode('utf-8') for text in texts)
    pairs.append((inputs, targets))
  return pairs
