"""`aya-train report`: one HTML page about a run, and a closing table for the terminal."""

import dataclasses
import functools
import importlib.metadata
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jinja2
import seqio
from etils import epath

from aya_train import destinations, nonfinite_steps, partitioning, task_prompts
from aya_train.checkpoint import formats, manager, reading
from aya_train.checkpoint.hf import hf_files
from aya_train.data import pair_features
from aya_train.evaluation import eval_answers
from aya_train.models import network, t5_config
from aya_train.objectives import seq2seq
from aya_train.report import embedding_map, kind_table, plots, run_record, run_results
from aya_train.tasks import storage
from aya_train.tasks.metrics import exact_match

logger = logging.getLogger(__name__)
PAGE = 'report.html'
_ANSWER_TOKENS = 256
_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'seqio', 'grain', 'transformers', 'babel')


@dataclasses.dataclass(frozen=True)
class AnswerSample:
  """One prompt with every answer to it.

  Attributes:
    prompt, reference: the example.
    ours: decoded by this package.
    theirs: decoded by transformers from the exported folder, None where none was given.
    same: whether both gave the same tokens, from weights rounded as the export's.
  """

  prompt: str
  reference: str
  ours: str
  theirs: str | None
  same: bool | None

  @property
  def right(self) -> bool:
    return exact_match.normalize(self.ours) == exact_match.normalize(self.reference)


def write(run: run_record.Run, hf_dir: str | None = None, num_prompts: int = 12) -> epath.Path:
  """Writes MODEL_DIR/report.html and prints the closing table.

  Prompts and counts of the data are there as far as the run's tasks are registered in this process.

  The prompts are taken at even distances from the examples that the run decodes, in their order;
  right and wrong answers alike. Where these are of kinds, right and wrong answers and kinds come in
  their shares, and kinds that can only be guessed are left out. A run that decodes nothing has
  prompts of its validation data, else of its training data. Answers have at most 256 tokens.

  A damaged checkpoint costs the page nothing else: the answers are then those of the newest sound
  one, or left out, and log and page say so.

  Args:
    run: with a checkpoint, as `run_record.read_measured` gives it.
    hf_dir: exported folder whose answers are compared, or None.
    num_prompts: how many answers to show.

  Raises:
    ValueError: a macro that the page needs cannot be read, or transformers gave other tokens; in
      the latter case the page is written all the same.
  """
  destinations.check_file(run.model_dir / PAGE, 'the page')
  damage: dict[int, str] = {}
  parameters = _of_newest_sound(run, manager.num_params, damage)
  kinds = kind_table.of_run(run)
  samples = _samples(run, kinds, hf_dir, num_prompts, damage)
  for step, problem in damage.items():
    logger.warning('checkpoint %d cannot be read: %s', step, problem)
  page = run.model_dir / PAGE
  texts = embedding_map.of_run(run) if embedding_map.is_one(run) else None
  storage.write_atomically(page, _render(run, samples, kinds, parameters, damage, texts))
  _print_table(run, samples, kinds)
  if texts is not None:
    before = '' if texts.before is None else f'untrained {texts.before:.1f} %, '
    print(f'Bitext accuracy on {texts.what}: {before}trained {texts.after:.1f} %')
  if differ := [s.prompt for s in samples if s.same is False]:
    raise ValueError(
      f'transformers gave other tokens than ours for {len(differ)} of {len(samples)} prompts, '
      f'first {differ[0]!r}: the export in {hf_dir} is not the model of {run.model_dir} ({page})'
    )
  return page


def _of_newest_sound(
  run: run_record.Run, read: Callable[[epath.Path], Any], damage: dict[int, str]
) -> Any:
  """What `read` gives of the newest step that it can read, or None; adds others to `damage`."""
  for step in manager.steps(run.model_dir):
    if step in damage:
      continue
    try:
      return read(manager.step_folder(run.model_dir, step))
    except (ValueError, OSError) as error:
      damage[step] = str(error)
  return None


def _samples(
  run: run_record.Run,
  kinds: kind_table.KindTable | None,
  hf_dir: str | None,
  count: int,
  damage: dict[int, str],
) -> list[AnswerSample]:
  picked = []
  if count > 0 and _decodes(run) and kinds is not None:
    picked = [(row.prompt, row.reference) for row in kind_table.sample(kinds, count)]
  elif count > 0 and _decodes(run):
    picked = _picked(run, count)
  if not picked:
    return []
  prompts = [prompt for prompt, _ in picked]
  lengths = dict(run.macro('TASK_FEATURE_LENGTHS'))
  if 'targets' not in lengths:
    lengths = pair_features.decoding_lengths(lengths)
  lengths['targets'] = min(lengths['targets'], _ANSWER_TOKENS)
  restored = _of_newest_sound(run, lambda folder: _restore(run, folder), damage)
  if restored is None:
    return []
  model, params = restored
  partitioner = partitioning.one_device()
  ours = eval_answers.decode_prompts(
    model, params, prompts, lengths=lengths, batch_size=len(prompts), partitioner=partitioner
  )
  text = model.output_vocabulary.decode
  if hf_dir is None:
    return [
      AnswerSample(prompt, reference, text(answer), None, None)
      for (prompt, reference), answer in zip(picked, ours, strict=True)
    ]
  # Rounded as the export is: near-ties of an untrained model fall otherwise in bfloat16.
  rounded = ours
  if (dtype := hf_files.dtype_of(hf_dir)) != 'float32':
    rounded = eval_answers.decode_prompts(
      *(model, jax.tree.map(functools.partial(_rounded, dtype), params), prompts),
      lengths=lengths,
      batch_size=len(prompts),
      partitioner=partitioner,
    )
  theirs = transformers_answers(hf_dir, prompts, lengths, model.input_vocabulary)
  return [
    AnswerSample(prompt, reference, text(a), text(c), b == c)
    for (prompt, reference), a, b, c in zip(picked, ours, rounded, theirs, strict=True)
  ]


def _rounded(dtype: str, x: Any) -> Any:
  return x.astype(dtype).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _decodes(run: run_record.Run) -> bool:
  """Whether the run's objective gives answers; others have a name where the network would be."""
  return 'objective' not in run.info['architecture']


def _picked(run: run_record.Run, count: int) -> list[tuple[str, str]]:
  """Prompts and references: of what the run decodes, of its validation or of its training data."""
  train = run.macro('MIXTURE_OR_TASK_NAME')
  named = run.macro('INFER_EVAL_MIXTURE_OR_TASK_NAME') or train
  problems = []
  decoded = run.macro('INFER_EVAL_SPLIT') or 'validation'
  trained = run.macro('TRAIN_SPLIT') or 'train'
  names = (named,) if isinstance(named, str) else tuple(named or ())
  pairs = [(name, split) for name in names for split in (decoded, 'test')]
  for task, split in (*pairs, (train, trained)):
    try:
      if picked := task_prompts.picked_texts(task, split, count):
        return picked
    except (ValueError, OSError) as error:  # the page may be made where the data is not
      problems.append(str(error))
  logger.warning('the report shows no answers: %s', '; '.join(dict.fromkeys(problems)))
  return []


def _restore(run: run_record.Run, folder: epath.Path) -> tuple[seq2seq.EncoderDecoderModel, Any]:
  """The model of one of the run's steps, decoding greedily, and its parameters."""
  metadata = manager.read_metadata(folder)
  vocabulary = seqio.SentencePieceVocabulary(metadata['vocabulary_file'], extra_ids=0)
  dtype = run.macro('ACTIVATION_DTYPE') or 'float32'
  config = t5_config.T5Config(**metadata['architecture'], dtype=dtype)
  model = seq2seq.EncoderDecoderModel(network.Transformer(config), vocabulary, vocabulary)
  return model, reading.read_for(model, partitioning.one_device(), formats.detect(folder))


def transformers_answers(
  folder: str, prompts: Sequence[str], lengths: Mapping[str, int], vocabulary: seqio.Vocabulary
) -> list[list[int]]:
  """Greedy answers of transformers' MT5ForConditionalGeneration, as ids without padding.

  Args:
    folder: exported folder.
    prompts: texts; those longer than `lengths['inputs']` tokens are cut, end of sequence kept.
    lengths: 'inputs' and 'targets' in tokens.
    vocabulary: what the folder's tokenizer must agree with.

  Raises:
    ValueError: the folder's tokenizer gives other ids than the vocabulary, or the extra is missing.
  """
  try:
    import torch
    import transformers
  except ImportError as error:
    raise ValueError(
      "comparing with transformers needs the extra 'hf': pip install .[hf]"
    ) from error
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  model = transformers.MT5ForConditionalGeneration.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  answers = []
  for prompt in prompts:
    ids = tokenizer(prompt)['input_ids']
    if ids != (want := [*vocabulary.encode(prompt), vocabulary.eos_id]):
      raise ValueError(f'{folder}: the tokenizer gives {ids} for {prompt!r}, expected {want}')
    ids = [*ids[:-1][: lengths['inputs'] - 1], ids[-1]]
    with torch.no_grad():
      out = model.generate(
        torch.tensor([ids]), max_new_tokens=lengths['targets'], do_sample=False, num_beams=1
      )
    answers.append([int(t) for t in out[0].tolist()[1:] if t != 0])
  return answers


def _render(
  run: run_record.Run,
  samples: Sequence[AnswerSample],
  kinds: kind_table.KindTable | None,
  parameters: int | None,
  damage: Mapping[int, str],
  texts: embedding_map.Map | None,
) -> str:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.report', 'templates'), autoescape=True, trim_blocks=True
  )
  rows, note = run_results.data_rows(run)
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return environment.get_template('run.html.jinja').render(
    run=run,
    step=run_results.last_step(run),
    evaluated=run_results.evaluated(run),
    heads=[head.capitalize() for head in _heads(run)],
    parameters=parameters,
    damage=damage,
    kind='mT5' if _decodes(run) else run.info['architecture']['objective'],
    features=dict(run.macro('TASK_FEATURE_LENGTHS')),
    figures=_figures(run, kinds),
    before_alone=run_results.measured_before_alone(run),
    charts=plots.charts(run),
    nonfinite=nonfinite_steps.records(run.records),
    groups=run_results.by_language(run),
    kinds=kinds,
    percent=kind_table.percent,
    bars_of_kinds=run_results.by_kind(run) if kinds is None else [],
    samples=samples,
    texts=texts,
    compared=any(s.same is not None for s in samples),
    data_rows=rows,
    data_note=note,
    versions=versions,
    devices=f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  )


def _heads(run: run_record.Run) -> tuple[str, str]:
  """What the first and the last figures of a run are called."""
  if not run_results.evaluated(run):
    return 'first line', 'last line'
  started = run.macro('INITIAL_CHECKPOINT_PATH')
  return ('before', 'after') if started else ('untrained', 'trained')


def _figures(run: run_record.Run, kinds: kind_table.KindTable | None) -> list[run_results.Figure]:
  """Those of `run_results`; the exact match without kinds that can only be guessed."""
  found = run_results.figures(run)
  if kinds is None or kinds.others is None:
    return found
  row = kinds.together
  name = f'{run_results.EXACT_MATCH}, {row.name.lower()}'
  of_kinds = run_results.Figure(name, row.before, row.after, percent=True)
  return [of_kinds if f.name.startswith(run_results.EXACT_MATCH) else f for f in found]


def _print_table(
  run: run_record.Run, samples: Sequence[AnswerSample], kinds: kind_table.KindTable | None
) -> None:
  heads = _heads(run)
  print(f'\n{"":42}{heads[0]:>12}{heads[1]:>12}')
  for figure in _figures(run, kinds):
    print(f'{figure.name:42}{figure.text(figure.before):>12}{figure.text(figure.after):>12}')
  for line in textwrap.wrap(run_results.measured_before_alone(run), 72):
    print(line)
  if kinds is not None:
    _print_kinds(kinds, heads)
    right = sum(sample.right for sample in samples)
    print(f'\nOf these kinds, in their shares: {right} of {len(samples)} answers right.')
  print()
  for s in samples:
    verdict = 'right' if s.right else 'wrong'
    print(f'{_line(s.prompt)}\n  ours {_line(s.ours)!r} ({verdict})', end='')
    print(f'  reference {_line(s.reference)!r}', end='')
    print('' if s.theirs is None else f'  transformers {_line(s.theirs)!r}')
  if any(s.same is not None for s in samples):
    equal = sum(bool(s.same) for s in samples)
    print(f'\nThe same tokens from transformers: {equal} of {len(samples)}')


def _print_kinds(kinds: kind_table.KindTable, heads: tuple[str, str]) -> None:
  print(f'\n{"Exact match":32}{"rows":>6}{"a copy":>10}{heads[0]:>12}{heads[1]:>12}')
  for row in kinds.lines:
    copied, before, after = map(kind_table.percent, (row.copied, row.before, row.after))
    print(f'{row.name:32}{row.rows:6,}{copied:>10}{before:>12}{after:>12}')
  for line in textwrap.wrap(kinds.why, 72):
    print(line)


def _line(text: str, longest: int = 100) -> str:
  """A text for the terminal: on one line, its middle left out if it is long."""
  text = text.replace('\n', ' ')
  half = longest // 2
  return text if len(text) <= longest else f'{text[:half]} ... {text[-half:]}'
