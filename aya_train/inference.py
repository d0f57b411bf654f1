"""`aya-train infer`: answers of a checkpoint to prompts of one's own, or to a task's inputs."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import (
  answer_batches,
  answer_file,
  batch_progress,
  decode_settings,
  destinations,
  hosts,
  parameter_tree,
  partitioning,
  prompt_files,
  stopping,
  watchdog,
)
from aya_train.checkpoint import answering, checkpoint_identity, formats, reading
from aya_train.data import feature_converters
from aya_train.evaluation import missing_tasks
from aya_train.objectives import objective, seq2seq
from aya_train.tasks import eval_tasks

logger = logging.getLogger(__name__)
_HASHED = 12  # hexadecimal digits of a digest that people see


@dataclasses.dataclass(frozen=True)
class _Question:
  """What is answered: ids of the inputs, and what an answer's line says beside the answer."""

  tokens: Sequence[int]
  record: Mapping[str, Any]


def infer(
  *,
  model: seq2seq.EncoderDecoderModel,
  checkpoint_path: str,
  partitioner: partitioning.Partitioner,
  task_feature_lengths: Mapping[str, int],
  base_checkpoint_path: str | None = None,
  output_file: str | None = None,
  batch_size: int = 32,
  prompts_file: str | None = None,
  prompts: Sequence[str] = (),
  prompt_column: str | None = None,
  prompts_format: prompt_files.Form | None = None,
  bad_rows: prompt_files.BadRows = 'refuse',
  mixture_or_task_name: str | None = None,
  split: str | None = None,
  num_examples: int | None = None,
  missing: str = missing_tasks.REFUSE,
  num_samples: int = 1,
  decode_as_checkpoint: bool = False,
  parameter_dtype: str = 'float32',
  overwrite: bool = False,
  seed: int = 0,
) -> epath.Path:
  """Answers prompts, one JSON object a line, each written as soon as its batch is done.

  Exactly one of `prompts`, `prompts_file` and `mixture_or_task_name` says what to answer. A line
  has `index`, `inputs` and `prediction`; the further columns of a row of `prompts_file`; of a task
  what `eval_tasks.Prediction` says; with several samples `sample`, from 0. Of a task the tokens are
  decoded that its preprocessors give, as `eval` does.

  The answers that an earlier process wrote to the file stay, and the others are added, if
  checkpoint, prompts and decoding are the same (answer_file.py). They depend on neither batch size
  nor devices.

  Args:
    model: the model, with its way of decoding.
    checkpoint_path: weights, of any format of checkpoint/formats.py.
    partitioner: mesh.
    base_checkpoint_path: if they are an adapter's, the weights under it; None: where it says.
    task_feature_lengths: tokens of inputs and targets; longer inputs are cut, and counted.
    output_file: JSON-lines file to write, of a disk, a bucket or a stream; None and '-' are
      standard output.
    batch_size: prompts decoded at a time.
    prompts, prompts_file, mixture_or_task_name: what to answer.
    prompt_column, prompts_format, bad_rows: of the file, see `prompt_files.read`.
    split, num_examples: which examples of the task; no split: see `infer_eval.split_of`.
    missing: what is done where data of a mixture's tasks are missing (`missing_tasks`).
    num_samples: answers to each prompt.
    decode_as_checkpoint: decode as its generation_config.json says, instead of as the model does.
    parameter_dtype: of the weights in memory, 'float32' or 'bfloat16'.
    overwrite: begin anew where the file holds answers of something else.
    seed: for sampling.

  Raises:
    ValueError: none or several of the three were given, or they are empty or damaged; the weights
      are of another network or vocabulary; greedy decoding is to give several samples; the output
      file is of something else.
    FileNotFoundError: no checkpoint, no prompts file, or the task's data is not there.
    OSError: the output file cannot be written.
    stopping.StoppedError: a signal came; what was answered is written.
  """
  if isinstance(prompts, str):  # ('x') is a text, ('x',) a tuple
    prompts = (prompts,)
  if sum(map(bool, (prompts, prompts_file, mixture_or_task_name))) != 1:
    raise ValueError(
      'give exactly one of PROMPTS, PROMPTS_FILE and MIXTURE_OR_TASK_NAME, got '
      f'{(prompts, prompts_file, mixture_or_task_name)}'
    )
  if num_examples is not None and num_examples < 1:
    raise ValueError(f'NUM_EXAMPLES must be None (all) or at least 1, got {num_examples}')
  output_file = answer_file.STDOUT if output_file is None else output_file
  if hosts.several() and prompts_file == prompt_files.STDIN:
    raise ValueError('standard input is on one host, and there are several: give a file')
  partitioner.check_batch_size(batch_size)
  parameter_tree.check_dtype(parameter_dtype)
  model.check_vocabulary()
  feature_converters.check_lengths(task_feature_lengths, ('inputs', 'targets'))
  source = formats.detect(checkpoint_path, base_checkpoint_path)
  reading.check(source, objective.parameter_axes(model)[0], model)
  trained, model = model, answering.adapted(model, source, decoding=decode_as_checkpoint)
  length = model.max_new_tokens or task_feature_lengths['targets']
  decode_fn, decoding = answer_batches.sampler(model.decode_fn, num_samples, length)
  identity = ''
  with hosts.together():
    if hosts.is_first() and not answer_file.is_stream(output_file):
      destinations.check_file(output_file, 'OUTPUT_FILE')
      identity = f'{source.path.name} {checkpoint_identity.of(source.path)}'
    if mixture_or_task_name:
      questions = _of_task(mixture_or_task_name, split, num_examples, task_feature_lengths, missing)
    else:
      found = (
        prompt_files.of_texts(prompts)
        if prompts
        else prompt_files.read(
          prompts_file or '', column=prompt_column, form=prompts_format, bad_rows=bad_rows
        )
      )
      questions = _of_prompts(model, found, task_feature_lengths['inputs'])
  about = {
    'checkpoint': identity,
    'prompts': f'{len(questions)} {_digest([[list(q.tokens), q.record] for q in questions])}',
    'activations': str(model.activation_dtype),
    **({} if parameter_dtype == 'float32' else {'parameters': parameter_dtype}),
    'max_new_tokens': length,
    **{f'decoding {key}': value for key, value in decoding.items()},
    **({'seed': seed} if decoding.get(decode_settings.DRAWS, True) else {}),
  }
  numbers = {_key(q.record): i for i, q in enumerate(questions)}
  with (
    stopping.stop_on_signal() as stop,
    answer_file.AnswerFile(
      output_file,
      about,
      num_questions=len(questions),
      records_each=num_samples,
      number=lambda record: numbers.get(_key(record)),
      overwrite=overwrite,
    ) as file,
  ):
    if file.complete and not file.is_stream:
      logger.info('%s: all %d answers are there already', output_file, len(questions))
      file.finish()
      return epath.Path(output_file)
    params = reading.read_for(trained, partitioner, source, parameter_dtype)
    tokens = [question.tokens for question in questions]
    todo = [i for i in range(len(questions)) if i not in file.done]
    progress = batch_progress.BatchProgress('answers', len(questions), len(file.done))
    started = time.monotonic()
    with watchdog.phase('answers'):
      for places, answers in answer_batches.answers(
        model,
        params,
        tokens,
        answer_batches.plan(tokens, todo, batch_size, in_order=file.is_stream),
        input_length=task_feature_lengths['inputs'],
        max_decode_length=length,
        batch_size=batch_size,
        partitioner=partitioner,
        decode_fn=decode_fn,
        num_samples=num_samples,
        seed=seed,
      ):
        file.write(
          _answered(questions[i].record, _text_of(model, ids), k, num_samples)
          for i, samples in zip(places, answers, strict=True)
          for k, ids in enumerate(samples)
        )
        progress.add(len(places))
        watchdog.beat()
        stop.check()
    file.finish()
  rate = len(todo) * num_samples / (time.monotonic() - started)
  total = len(questions) * num_samples
  logger.info('wrote %d answers to %s (%.1f a second)', total, output_file, rate)
  return epath.Path(output_file)


def _of_prompts(
  model: seq2seq.EncoderDecoderModel, prompts: Sequence[prompt_files.Prompt], length: int
) -> list[_Question]:
  """Prompts as ids, cut to `length` tokens, each with its end of sequence."""
  vocabulary = model.input_vocabulary
  questions, cut = [], []
  for index, prompt in enumerate(prompts):
    ids = vocabulary.encode(prompt.text)
    if len(ids) >= length:
      cut.append(index)
    record = {'index': index, **prompt.columns, 'inputs': prompt.text}
    questions.append(_Question([*ids[: length - 1], vocabulary.eos_id], record))
  _tell_cut(cut, len(prompts), f'longer than {length} tokens and cut there')
  return questions


def _of_task(
  name: str,
  split: str | None,
  num_examples: int | None,
  lengths: Mapping[str, int],
  missing: str,
) -> list[_Question]:
  from aya_train import task_prompts  # TensorFlow comes with it

  examples = task_prompts.task_examples_of(name, split, num_examples, lengths, missing)
  if not examples:
    raise ValueError(f'no examples in the split {split or "that is published"!r} of {name!r}')
  full = [i for i, e in enumerate(examples) if len(e.tokens) >= lengths['inputs']]
  _tell_cut(full, len(examples), f'{lengths["inputs"]} tokens long, or were cut there')
  return [
    _Question(
      example.tokens,
      eval_tasks.Prediction(
        task=example.task,
        index=example.index,
        inputs=example.inputs,
        targets=example.references,
        fields=example.fields,
      ).to_dict(),
    )
    for example in examples
  ]


def _tell_cut(cut: Sequence[int], count: int, what: str) -> None:
  if cut and hosts.is_first():
    logger.warning(
      '%d of %d inputs are %s, the first at index %d: longer TASK_FEATURE_LENGTHS keep them whole',
      *(len(cut), count, what, cut[0]),
    )


def _key(record: Mapping[str, Any]) -> tuple[Any, Any]:
  return record.get('task'), record.get('index')


def _digest(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:_HASHED]


def _text_of(model: seq2seq.EncoderDecoderModel, ids: Sequence[int]) -> str:
  ids = ids[:-1] if ids and ids[-1] == model.answer_end else ids
  return model.output_vocabulary.decode(ids)


def _answered(
  record: Mapping[str, Any], prediction: str, sample: int, num_samples: int
) -> dict[str, Any]:
  number = {'sample': sample} if num_samples > 1 else {}
  return {**record, **number, 'prediction': prediction}
