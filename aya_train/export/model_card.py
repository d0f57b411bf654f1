"""README.md and LICENSE of a converted folder, from what the run left in its MODEL_DIR.

What a run did not record is said to be missing; nothing is made up. The data manifest
(MODEL_DIR/data_manifest.json) is read tolerantly, see `read_manifest`.
"""

import collections
import dataclasses
import importlib.resources
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from etils import epath

from aya_train import path_facts, signed_json
from aya_train.checkpoint.hf import hf_config, hf_files, hf_tokenizer
from aya_train.export import evaluation_entries, quality
from aya_train.report import run_record, run_results
from aya_train.tasks import catalog
from aya_train.tasks.languages import aya101

MANIFEST = 'data_manifest.json'
logger = logging.getLogger(__name__)
LICENSES = ('apache-2.0',)  # those whose text comes with the package
PIPELINE_TAG = 'text2text-generation'
_LIBRARIES = {'gguf': 'gguf', 'ct2': 'ctranslate2'}
_NO_LANGUAGE = ('und', 'unknown', '')
_HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+')
_RECIPE = (
  ('Steps', 'TRAIN_STEPS'),
  ('Batch', 'BATCH_SIZE'),
  ('Lengths', 'TASK_FEATURE_LENGTHS'),
  ('Packing', 'PACK'),
  ('Optimizer', 'OPTIMIZER'),
  ('Learning rate', 'BASE_LEARNING_RATE'),
  ('Schedule', 'LEARNING_RATE_FACTORS'),
  ('Warm-up steps', 'WARMUP_STEPS'),
  ('Loss normalisation', 'LOSS_NORMALIZING_FACTOR'),
  ('z-loss', 'Z_LOSS'),
  ('Label smoothing', 'LABEL_SMOOTHING'),
  ('Dropout', 'DROPOUT_RATE'),
  ('Activations', 'ACTIVATION_DTYPE'),
  ('Mesh', 'MESH_SHAPE'),
  ('Seed', 'RANDOM_SEED'),
  ('Mixture', 'MIXTURE_OR_TASK_NAME'),
  ('Initial checkpoint', 'INITIAL_CHECKPOINT_PATH'),
)


@dataclasses.dataclass(frozen=True)
class DataSource:
  """One source of data; what the manifest does not say is None or empty.

  Attributes:
    name, version, license, examples: as the manifest has them.
    repository: of a source that tasks.sources knows, on the Hub.
    use: what the strictest of its licences allows, such as 'commercial'.
    notes: share-alike, models that wrote rows, and terms of their owners.
  """

  name: str
  version: str | None = None
  license: str | None = None
  examples: int | None = None
  repository: str | None = None
  use: str | None = None
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class TrainingData:
  """A data manifest.

  Attributes:
    sources: where the examples come from.
    languages: examples of each language, by ISO 639-3 code.
    licenses: examples under each licence.
    attributions: credits that licences ask for.
  """

  sources: Sequence[DataSource] = ()
  languages: Mapping[str, int] = dataclasses.field(default_factory=dict)
  licenses: Mapping[str, int] = dataclasses.field(default_factory=dict)
  attributions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Card:
  """What a card says of a run.

  Attributes:
    recipe: names and values for people.
    mixture, initial_checkpoint, lengths: macros of those names, None where not set.
    figures, groups: evaluation, as the run report has it.
    evaluation_step: of the figures, None without any.
    scores: task to exact match in percent, of the split `scored_split`.
    languages: codes that the evaluation reports on.
    data: the manifest, None without one.
  """

  recipe: Sequence[tuple[str, str]]
  mixture: str | None
  initial_checkpoint: str | None
  lengths: Mapping[str, int] | None
  figures: Sequence[run_results.Figure]
  groups: Sequence[run_results.Group]
  evaluation_step: int | None
  scores: Mapping[str, float]
  scored_split: str
  languages: Sequence[str]
  data: TrainingData | None


# Reading ------------------------------------------------------------------------------------------


def read(model_dir: epath.PathLike) -> Card:
  """What the files of a run tell: run.json, config.gin, metrics.jsonl and the manifest.

  Raises:
    FileNotFoundError: run.json is missing.
    ValueError: the manifest is damaged.
  """
  run = run_record.read(model_dir)
  figures = run_results.figures(run)
  last = {task: run.of_kind(run_record.INFER_EVAL + task)[-1] for task in run.infer_tasks}
  codes = {name.removeprefix('exact_match/') for record in last.values() for name in record}
  return Card(
    recipe=_recipe(run.macros, run.info, run_results.steps_trained(run)),
    mixture=run.macros.get('MIXTURE_OR_TASK_NAME'),
    initial_checkpoint=run.macros.get('INITIAL_CHECKPOINT_PATH'),
    lengths=_mapping(run.macros.get('TASK_FEATURE_LENGTHS')) or None,
    figures=figures,
    groups=run_results.by_language(run),
    evaluation_step=run_results.last_step(run) if figures else None,
    scores={task: r['exact_match'] for task, r in last.items() if 'exact_match' in r},
    scored_split=run.macro('INFER_EVAL_SPLIT') or 'validation',
    languages=sorted(codes & set(aya101.BY_CODE)),
    data=read_manifest(run.model_dir),
  )


def _recipe(
  macros: Mapping[str, Any], info: Mapping[str, Any], trained: int | None
) -> list[tuple[str, str]]:
  # TRAIN_STEPS is what was asked for, those of pre-training included, and may not be what was done.
  rows = [] if trained is None else [('Steps', f'{trained:,}')]
  warms_up = 'warmup' in str(macros.get('LEARNING_RATE_FACTORS'))
  for name, macro in _RECIPE:
    value = macros.get(macro)
    if value is None or (macro == 'WARMUP_STEPS' and not warms_up):
      continue
    if name == 'Steps' and rows:
      continue
    if name == 'Initial checkpoint':
      value = str(value).rstrip('/').rpartition('/')[2]  # not where it lies on somebody's disk
    elif name == 'Batch':
      value = f'{value} rows'
    elif isinstance(value, Mapping):
      value = ', '.join(f'{k} {v}' for k, v in value.items())
    elif isinstance(value, bool):
      value = 'yes' if value else 'no'
    rows.append((name, str(value).lstrip('@')))
  if first := info.get('first_step'):
    rows.append(('Steps before this run', f'{first:,}'))
  return rows


def read_manifest(model_dir: epath.PathLike) -> TrainingData | None:
  """MODEL_DIR/data_manifest.json, or None.

  It is read as `data_manifest.describe` writes it, but every key may be missing and hand-written
  ones may be simpler: `sources` may be a mapping of names to sources, a licence a text instead of
  counts, and `languages`, `licenses` and `attributions` may stand beside `sources`. Counts of
  sources are added up. Where it is no longer as the run wrote it, a warning says so.

  Raises:
    ValueError: the file is no JSON object.
  """
  path = epath.Path(model_dir) / MANIFEST
  if not path.exists():
    return None
  try:
    manifest = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(manifest, dict):
    raise ValueError(f'{path} must hold a JSON object, it holds a {type(manifest).__name__}')
  if signed_json.is_changed(manifest):
    logger.warning(
      '%s is not as the run wrote it; the card says what stands in it now: is that right?', path
    )
  entries = manifest.get('sources') or []
  if isinstance(entries, dict):
    entries = [{'name': name, **_mapping(entry)} for name, entry in entries.items()]
  entries = [e if isinstance(e, dict) else {'name': str(e)} for e in entries]
  everywhere = [*entries, manifest, _mapping(manifest.get('counts'))]
  credits = [credit for entry in entries for credit in _texts(entry.get('attribution'))]
  credits += _texts(manifest.get('attributions'))
  return TrainingData(
    sources=[_source(entry) for entry in entries],
    languages=_sum(entry.get('languages') for entry in everywhere),
    licenses=_sum(entry.get('licenses') for entry in everywhere),
    attributions=list(dict.fromkeys(credits)),
  )


def _source(entry: Mapping[str, Any]) -> DataSource:
  name = str(entry.get('name', 'unnamed'))
  known = catalog.BY_NAME.get(name)
  version, examples = entry.get('version'), entry.get('examples')
  license = entry.get('license') or entry.get('licenses')
  notes = ['share-alike'] if entry.get('share_alike') else []
  notes += [f'written by {model}' for model in _texts(entry.get('model_generated_by'))]
  notes += [f'terms: {terms}' for terms in _texts(entry.get('terms'))]
  return DataSource(
    name=name,
    version=None if version is None else str(version),
    license=', '.join(_texts(license)) or None,
    examples=examples if isinstance(examples, int) else None,
    repository=known.repository if known else None,
    use=entry.get('use'),
    notes=tuple(notes),
  )


def _texts(value: Any) -> list[str]:
  """A text, a list of texts, or the names of a mapping, as a list."""
  if not value:
    return []
  return [value] if isinstance(value, str) else [str(text) for text in value]


def _mapping(value: Any) -> dict[str, Any]:
  return value if isinstance(value, dict) else {}


def _sum(counts: Iterable[Any]) -> dict[str, int]:
  """Names to sums of their counts, most first; what is no mapping to counts is left out."""
  total: collections.Counter[str] = collections.Counter()
  for mapping in counts:
    total.update({name: n for name, n in _mapping(mapping).items() if isinstance(n, int)})
  return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


# Writing ------------------------------------------------------------------------------------------


def write(
  folder: epath.PathLike,
  hf_folder: epath.PathLike,
  *,
  model_dir: epath.PathLike | None = None,
  name: str | None = None,
  base_model: str | None = None,
  license: str = 'apache-2.0',
  evaluations: Sequence[evaluation_entries.Entry] = (),
) -> None:
  """Writes README.md, and LICENSE where its text is known.

  Args:
    folder: the converted folder; a quantised one has the report of `quality`.
    hf_folder: the exported folder it was made from, or the same.
    model_dir: of the run, if there is one.
    name: of the model, by default the folder's.
    base_model: id on the Hub of the model that training started from.
    license: of the weights, as the Hub names it.
    evaluations: figures of `aya-train eval`.

  Raises:
    ValueError: the manifest is damaged.
  """
  folder = epath.Path(folder)
  report = folder / quality.FILE
  text = render(
    hf_folder,
    name=name or folder.name,
    card=read(model_dir) if model_dir else None,
    report=json.loads(report.read_text()) if report.exists() else None,
    base_model=base_model,
    license=license,
    evaluations=evaluations,
    file=next((path.name for path in path_facts.matching(folder, '*.gguf')), None),
  )
  (folder / 'README.md').write_text(text)
  if license in LICENSES:
    (folder / 'LICENSE').write_text(license_text(license))


def known_languages(data: TrainingData | None) -> list[str]:
  """Codes of the languages that a manifest names, most examples first."""
  return [code for code in (data.languages if data else ()) if code not in _NO_LANGUAGE]


def license_text(license: str) -> str:
  """The text of one of LICENSES."""
  return (
    importlib.resources.files('aya_train.export') / 'templates' / f'{license}.txt'
  ).read_text()


def render(
  hf_folder: epath.PathLike,
  *,
  name: str,
  card: Card | None,
  report: Mapping[str, Any] | None,
  base_model: str | None,
  license: str,
  evaluations: Sequence[evaluation_entries.Entry] = (),
  file: str | None = None,
) -> str:
  """The text of README.md; arguments as for `write`, `report` as `quality.report` returns it."""
  settings = hf_files.read_config(hf_folder)
  tied = hf_files.is_tied(hf_folder)
  network = hf_config.from_hf_config(settings, has_head=not tied, where=str(hf_folder))
  data = card.data if card else None
  codes = known_languages(data) or list(card.languages if card else ())
  vocabulary = epath.Path(hf_folder) / hf_tokenizer.MODEL_FILE
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.export', 'templates'), trim_blocks=True, autoescape=False
  )
  environment.filters['size'] = _size
  text = environment.get_template('model_card.md.jinja').render(
    metadata=_metadata(
      name,
      card=card,
      report=report,
      base_model=base_model,
      license=license,
      codes=codes,
      evaluations=evaluations,
    ),
    name=name,
    network=_describe(network, hf_files.parameter_count(hf_folder)),
    card=card,
    data=data,
    quality=report,
    evaluations=evaluation_entries.rows(evaluations),
    base_model=base_model,
    tied=tied,
    is_umt5=settings.get('model_type') == 'umt5' and not tied,
    dtype=hf_files.dtype_of(hf_folder),
    file=file,
    decoder_start_token_id=settings.get('decoder_start_token_id', 0),
    languages=[aya101.described(code) for code in sorted(codes)],
    vocabulary_rows=settings['vocab_size'],
    pieces=len(hf_tokenizer.read_vocabulary(vocabulary).pieces) if vocabulary.exists() else None,
    license=license,
    license_file=license in LICENSES,
  )
  return re.sub(r'\n{3,}', '\n\n', text).rstrip() + '\n'


def _metadata(
  name: str,
  *,
  card: Card | None,
  report: Mapping[str, Any] | None,
  base_model: str | None,
  license: str,
  codes: Sequence[str],
  evaluations: Sequence[evaluation_entries.Entry],
) -> str:
  """The YAML block (https://huggingface.co/docs/hub/model-cards)."""
  import huggingface_hub

  kind = report['format'] if report else None
  data = card.data if card else None
  split = card.scored_split if card else None
  names = [source.repository or source.name for source in (data.sources if data else ())]
  datasets = [name for name in dict.fromkeys(names) if _HUB_NAME.fullmatch(name)]
  results = [
    huggingface_hub.EvalResult(
      task_type=PIPELINE_TAG,
      dataset_type=task,
      dataset_name=task,
      dataset_split=split,
      metric_type='exact_match',
      metric_value=round(score, 2),
      metric_name='Exact match (%)',
    )
    for task, score in (card.scores if card and not report else {}).items()
  ]
  results += evaluation_entries.model_index(evaluations)
  metadata = huggingface_hub.ModelCardData(
    model_name=name if results else None,
    language=sorted(codes) or None,
    license=license,
    base_model=base_model,
    base_model_relation=('quantized' if report else 'finetune') if base_model else None,
    datasets=datasets or None,
    eval_results=results or None,
    library_name=_LIBRARIES[kind] if kind else 'transformers',
    pipeline_tag=PIPELINE_TAG,
    tags=['mt5', 'multilingual', 'instruction-tuning', 'aya', *([kind] if kind else [])],
  )
  return metadata.to_yaml().strip()


def _describe(network: Any, parameters: int) -> str:
  kind = 'a T5' if network.logits_via_embedding else 'an mT5'
  return (
    f'{kind} encoder-decoder of {_rounded(parameters)} parameters '
    f'({network.num_encoder_layers} + {network.num_decoder_layers} layers, '
    f'width {network.emb_dim}, {network.num_heads} heads, {network.vocab_size:,} vocabulary rows)'
  )


def _rounded(count: int) -> str:
  for unit, word in ((10**9, 'billion'), (10**6, 'million')):
    if count >= unit:
      return f'{count / unit:.1f} {word}'
  return f'{count:,}'


def _size(count: int) -> str:
  return f'{count / 1e9:.2f} GB' if count >= 10**9 else f'{count / 1e6:.1f} MB'
