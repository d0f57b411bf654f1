"""What vectors of a run's own pairs say: bitext accuracy by language, and a map in two dimensions.

The texts are those of the run's task that it never trained on: its split 'test', else that which it
is validated on. Vectors are compared with those of the untrained encoder that the run began with.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import seqio
from flax import traverse_util

from aya_train import partitioning
from aya_train.checkpoint import formats, manager, reading
from aya_train.objectives import embedding, objective
from aya_train.report import plots, run_record
from aya_train.tasks.eval import generated_tasks
from aya_train.tasks.retrieval import pair_tasks

logger = logging.getLogger(__name__)
_MOST_TEXTS = 300  # of a language
_MOST_POINTS = 1500
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Side:
  """Texts of one language and what they mean in another, aligned.

  Attributes:
    language: ISO 639-3, '' if unknown.
    texts, anchors: text i means anchor i; no two anchors mean the same.
    meanings: of each.
  """

  language: str
  texts: Sequence[str]
  anchors: Sequence[str]
  meanings: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Bar:
  """Bitext accuracy of a language in percent, both directions together."""

  name: str
  before: float | None
  after: float
  rows: int


@dataclasses.dataclass(frozen=True)
class Map:
  """What the page shows.

  Attributes:
    what: the data, in words.
    before, after: means of the bars; `before` is None if the run's start is not at hand.
    bars: by language, best first.
    charts: the map by language and by meaning.
  """

  what: str
  before: float | None
  after: float
  bars: Sequence[Bar]
  charts: Sequence[plots.Chart]


def is_one(run: run_record.Run) -> bool:
  """Whether a run trained a sentence encoder."""
  return run.info['architecture'].get('objective') == embedding.NAME


def of_run(run: run_record.Run) -> Map | None:
  """The section of a run of recipes/embed_*.gin; None where its pairs are not at hand."""
  name = run.macro('TRAIN_EVAL_MIXTURE_OR_TASK_NAME') or run.macro('MIXTURE_OR_TASK_NAME')
  try:
    sides, split = _sides(name, run.macro('TRAIN_EVAL_SPLIT') or 'validation')
  except (ValueError, OSError) as error:  # the page may be made where the data is not
    logger.warning('the report shows no map of texts: %s', error)
    return None
  if not sides:
    return None
  source = formats.detect(run.model_dir)
  metadata = manager.read_metadata(source.path)
  vocabulary = seqio.SentencePieceVocabulary(metadata['vocabulary_file'], extra_ids=0)
  model = embedding.from_metadata(metadata, vocabulary)
  length = run.macro('TASK_FEATURE_LENGTHS')['inputs']
  embed = functools.partial(_embed, model, length)
  trained = reading.read_for(model, partitioning.one_device(), source)
  vectors = _vectors(embed, trained, model, sides)
  after = [_accuracy(*pair) for pair in vectors]
  before: Sequence[float | None] = [None] * len(sides)
  if (start := _start(run, model)) is not None:
    before = [_accuracy(*pair) for pair in _vectors(embed, start, model, sides)]
  bars = [
    Bar(generated_tasks.name_of(s.language) if s.language else 'all', b, a, len(s.texts))
    for s, a, b in zip(sides, after, before, strict=True)
  ]
  known = [b for b in before if b is not None]
  return Map(
    f"'{name}:{split}', {sum(len(s.texts) for s in sides):,} texts in {len(sides)} languages",
    float(np.mean(known)) if len(known) == len(sides) else None,
    float(np.mean(after)),
    sorted(bars, key=lambda bar: -bar.after),
    _charts(sides, [texts for texts, _ in vectors]),
  )


def _sides(name: str, split: str) -> tuple[list[Side], str]:
  """Texts by language, of the split that the run never saw."""
  tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
  sources = [getattr(task.source, 'whole', task.source) for task in tasks]
  pairs_of = [s for s in sources if isinstance(s, pair_tasks.PairSource)]
  chosen = 'test' if any('test' in s.splits for s in pairs_of) else split
  by_group: dict[str, dict[str, str]] = {}
  plain: dict[str, list[tuple[str, str]]] = {}
  for source in pairs_of:
    if chosen not in source.splits:
      continue
    for pair in source.pairs(chosen):
      if source.dataset_name.startswith('cldr'):
        by_group.setdefault(pair.language, {}).setdefault(pair.group, pair.query)
      else:
        plain.setdefault(pair.language, []).append((pair.query, pair.target))
  found = [_of_pairs(language, pairs) for language, pairs in plain.items()]
  if by_group:
    # The language that names most things is what the others are held against.
    anchor = max(by_group, key=lambda code: (len(by_group[code]), code == 'eng'))
    anchors = by_group.pop(anchor)
    for language, of in by_group.items():
      groups = [group for group in of if group in anchors][:_MOST_TEXTS]
      found.append(Side(language, [of[g] for g in groups], [anchors[g] for g in groups], groups))
  return [side for side in found if len(side.texts) > 1], chosen


def _of_pairs(language: str, pairs: Sequence[tuple[str, str]]) -> Side:
  once = list({target: (query, target) for query, target in pairs}.values())[:_MOST_TEXTS]
  return Side(language, [q for q, _ in once], [t for _, t in once], [t for _, t in once])


def _start(run: run_record.Run, model: embedding.EmbeddingModel) -> Any | None:
  """The parameters that the run began with, None if its initial checkpoint is not at hand."""
  fresh = nn.unbox(model.initial_variables(jax.random.key(run.info['seed'])))
  if (path := run.macro('INITIAL_CHECKPOINT_PATH')) is None:
    return fresh
  try:
    abstract = objective.parameter_axes(model)[0]
    shardings = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings), abstract
    )
    found = reading.read_parts(formats.detect(path), abstract, model)
  except (ValueError, OSError) as error:
    logger.warning('the report compares with no untrained encoder: %s', error)
    return None
  flat = traverse_util.flatten_dict(fresh) | traverse_util.flatten_dict(found)
  return traverse_util.unflatten_dict(flat)


Embed = Callable[[Any, Sequence[str]], np.ndarray]


def _embed(
  model: embedding.EmbeddingModel, length: int, params: Any, texts: Sequence[str]
) -> np.ndarray:
  """Vectors of texts, float32 [N, D]."""
  tokens = np.zeros((-(-len(texts) // _BATCH) * _BATCH, length), np.int32)
  for row, text in zip(tokens, texts, strict=False):
    ids = [*model.vocabulary.encode(text)[: length - 1], model.vocabulary.eos_id]
    row[: len(ids)] = ids
  step = _step(model.encoder)
  parts = [step(params, jnp.asarray(tokens[i : i + _BATCH])) for i in range(0, len(tokens), _BATCH)]
  return np.concatenate(jax.device_get(parts))[: len(texts)]


@functools.lru_cache(maxsize=1)
def _step(encoder: Any) -> Callable[..., Any]:
  return jax.jit(encoder.embed)


def _vectors(
  embed: Embed, params: Any, model: embedding.EmbeddingModel, sides: Sequence[Side]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Vectors of the texts and of the anchors of each side; each text is embedded once."""
  found: list[Mapping[str, np.ndarray]] = []
  for prompt, all_texts in (
    (model.query_prompt, [t for s in sides for t in s.texts]),
    (model.passage_prompt, [t for s in sides for t in s.anchors]),
  ):
    once = list(dict.fromkeys(all_texts))
    found.append(dict(zip(once, embed(params, [prompt + text for text in once]), strict=True)))
  return [
    (np.stack([found[0][t] for t in s.texts]), np.stack([found[1][t] for t in s.anchors]))
    for s in sides
  ]


def _accuracy(texts: np.ndarray, anchors: np.ndarray) -> float:
  """Percent of texts whose nearest anchor is theirs, and the other way, together."""
  scores = texts @ anchors.T
  right = [np.argmax(x, axis=1) == np.arange(len(x)) for x in (scores, scores.T)]
  return 100 * float(np.mean(right))


def plane(vectors: np.ndarray) -> np.ndarray:
  """The two directions in which vectors [N, D] differ most (principal components), [N, 2]."""
  centred = vectors - vectors.mean(axis=0)
  left, values, _ = np.linalg.svd(centred, full_matrices=False)
  return (left * values)[:, :2]


def _charts(sides: Sequence[Side], vectors: Sequence[np.ndarray]) -> list[plots.Chart]:
  languages = [s.language for s in sides for _ in s.texts]
  meanings = [m for s in sides for m in s.meanings]
  points = np.concatenate(list(vectors))
  if len(points) > _MOST_POINTS:
    chosen = np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int)
    points = points[chosen]
    languages, meanings = ([names[i] for i in chosen] for names in (languages, meanings))
  flat = plane(points)
  names = [generated_tasks.name_of(code) if code else 'all' for code in languages]
  short = [meaning.split(' ', 2)[-1][:24] for meaning in meanings]
  return [
    plots.scatter('Texts by language', flat, names),
    plots.scatter('Texts by meaning', flat, short),
  ]
