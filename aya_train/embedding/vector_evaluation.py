"""`aya-train eval-embeddings`: search, translations and similarity, as the eval report shows them.

OUTPUT/results.json            figures with 95 % intervals (tasks/eval_tasks.py)
      /predictions/TASK.jsonl  what was found for each text
      /vectors/NAME/           vectors of a corpus that is searched; a second run goes on there
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from aya_train import batch_progress, hosts, partitioning, stopping, watchdog
from aya_train.embedding import (
  eval_data,
  text_embedding,
  text_encoder,
  text_rows,
  vector_folder,
  vector_search,
)
from aya_train.evaluation import eval_results
from aya_train.tasks import eval_tasks, storage
from aya_train.tasks.metrics import intervals, retrieval

logger = logging.getLogger(__name__)
_DEPTH = 100  # passages that are found for a query
_KEPT = 10  # of them in predictions


class Evaluation:
  """Figures of one checkpoint, written as they come; every host makes one and calls the same."""

  def __init__(
    self,
    encoder: text_encoder.TextEncoder,
    output: epath.PathLike,
    partitioner: partitioning.Partitioner,
    prompts: tuple[str, str] = ('', ''),
  ):
    """Opens the folder; an evaluation of another checkpoint in it is set aside.

    Args:
      encoder: the model.
      output: folder.
      partitioner: mesh, for the search.
      prompts: before queries and before passages; translations and similarities get none.
    """
    self._encoder, self._folder = encoder, epath.Path(output)
    self._partitioner, self._prompts = partitioner, prompts
    checkpoint = encoder.checkpoint
    settings = {
      'format': checkpoint.kind,
      'activation_dtype': encoder.about['activations'],
      'max_length': encoder.max_length,
      'dimension': encoder.dimension,
      'query_prompt': prompts[0],
      'passage_prompt': prompts[1],
    }
    identity = json.dumps([encoder.about, encoder.dimension, prompts])
    self._results = eval_results.Results(
      self._folder,
      eval_results.Evaluated(
        checkpoint=str(checkpoint.path),
        fingerprint=identity,
        step=checkpoint.step,
        model={'architecture': checkpoint.config.architecture()},
        settings=settings,
      ),
    )

  def search(self, data: eval_data.SearchData) -> dict[str, float]:
    """nDCG@10, Recall@100 and MRR@10 of a benchmark, in percent."""
    folder = self._folder / 'vectors' / eval_tasks.slug(data.name)
    text_embedding.embed(
      self._encoder,
      data.corpus,
      folder,
      what=f'the corpus of {data.name}',
      prompt=self._prompts[1],
      bad_rows='leave_out',
      overwrite=True,
    )
    corpus = vector_folder.VectorFolder(folder)
    asked = [query for query in data.queries if query in data.grades]
    vectors = self._vectors([self._prompts[0] + data.queries[query] for query in asked], data.name)
    # One more, since a query may be a passage itself.
    rows, scores = vector_search.search(vectors, corpus, _DEPTH + 1, self._partitioner)
    ids = corpus.ids()
    _tell_of_missing(data, ids)
    run = {
      query: {
        ids[row]: float(score)
        for row, score in zip(of_query, of_scores, strict=True)
        if ids[row] != query
      }
      for query, of_query, of_scores in zip(asked, rows.tolist(), scores, strict=True)
    }
    about = eval_tasks.EvalTask(
      data.name, data.name, protocol=eval_tasks.EMBEDDED, metric=retrieval.NDCG
    )
    figures = retrieval.search_figures(run, data.grades)
    texts = {own: row for row, own in enumerate(ids)}
    each = retrieval.per_query(run, data.grades)

    def text(own: str) -> str:
      return corpus.text(texts[own]) if own in texts else own

    predictions = [
      eval_tasks.Prediction(
        task=about.name,
        index=i,
        inputs=data.queries[query],
        targets=[text(own) for own, grade in data.grades[query].items() if grade > 0][:_KEPT],
        prediction=text(found[0]) if (found := retrieval.ranking(run[query])) else '',
        fields={'query_id': query, 'found': found[:_KEPT], **each[query]},
      )
      for i, query in enumerate(q for q in asked if q in each)
    ]
    self._add(about, len(each), figures, predictions)
    return figures

  def translations(self, data: eval_data.PairData) -> dict[str, float]:
    """Accuracy of finding the translation, both ways, in percent."""
    one, other = self._both(data)
    there = vector_search.search(one, vector_search.ArrayCorpus(other), 1, self._partitioner)[0]
    back = vector_search.search(other, vector_search.ArrayCorpus(one), 1, self._partitioner)[0]
    there, back = there[:, 0], back[:, 0]
    names = data.subset.split('-') if data.subset.count('-') == 1 else ['one', 'other']
    right = np.arange(len(there))
    hits = ((there == right) + (back == right).astype(float)) / 2
    figures = {
      **intervals.percent('accuracy', hits),
      **retrieval.bitext_figures(there, f'{names[0]}_to_{names[1]}_'),
      **retrieval.bitext_figures(back, f'{names[1]}_to_{names[0]}_'),
    }
    about = _about(data, 'accuracy')
    predictions = [
      eval_tasks.Prediction(
        task=about.name,
        index=i,
        inputs=data.one[i],
        targets=[data.other[i]],
        prediction=data.other[there[i]],
        fields={'back': data.one[back[i]], 'accuracy': float(hits[i])},
      )
      for i in range(len(there))
    ]
    self._add(about, len(there), figures, predictions)
    return figures

  def similarities(self, data: eval_data.PairData) -> dict[str, float]:
    """Spearman's and Pearson's correlation of cosines with people's scores, in percent."""
    one, other = self._both(data)
    scores = np.sum(one.astype(np.float64) * other, axis=1)
    figures = retrieval.similarity_figures(scores, data.gold)
    about = _about(data, 'spearman')
    predictions = [
      eval_tasks.Prediction(
        task=about.name,
        index=i,
        inputs=f'{data.one[i]}\n{data.other[i]}',
        targets=[f'{data.gold[i]:g}'],
        prediction=f'{scores[i]:.4f}',
      )
      for i in range(len(scores))
    ]
    self._add(about, len(scores), figures, predictions)
    return figures

  def _both(self, data: eval_data.PairData) -> tuple[np.ndarray, np.ndarray]:
    vectors = self._vectors([*data.one, *data.other], _about(data, '').name)
    return vectors[: len(data.one)], vectors[len(data.one) :]

  def _vectors(self, texts: Sequence[str], what: str) -> np.ndarray:
    progress = batch_progress.BatchProgress(f'{what}: vectors', len(texts))
    with stopping.stop_on_signal() as stop, watchdog.phase('vectors'):

      def advance(count: int) -> None:
        progress.add(count)
        watchdog.beat()
        stop.check()

      return self._encoder.vectors(texts, advance)

  def _add(
    self,
    about: eval_tasks.EvalTask,
    count: int,
    figures: Mapping[str, float],
    predictions: Sequence[eval_tasks.Prediction],
  ) -> None:
    notes = [] if figures else ['the figures are not defined: one side is constant']
    if hosts.is_first():
      folder = self._folder / eval_tasks.PREDICTIONS
      folder.mkdir(parents=True, exist_ok=True)
      lines = ''.join(json.dumps(p.to_dict(), ensure_ascii=False) + '\n' for p in predictions)
      storage.write_atomically(folder / f'{about.name}.jsonl', lines.encode())
      self._results.add(eval_tasks.Result(about, count, dict(figures), notes))
      told = ', '.join(
        f'{name} {figures[name]:.2f} [{figures[name + "_low"]:.2f}, {figures[name + "_high"]:.2f}]'
        for name in figures
        if name + '_low' in figures
      )
      logger.info('%s: %s', about.name, told or notes[0])


def _about(data: eval_data.PairData, metric: str) -> eval_tasks.EvalTask:
  name = '.'.join(filter(None, (data.name, data.subset)))
  # A pivot of its own is told by the name; a language that has no code by the subset.
  subset = '' if data.language or not data.subset else data.subset
  return eval_tasks.EvalTask(
    name,
    data.name,
    language=data.language,
    protocol=eval_tasks.EMBEDDED,
    metric=metric,
    subset=subset,
  )


@dataclasses.dataclass(frozen=True)
class Data:
  """What a checkpoint is measured on: (name, path) of each."""

  retrieval: Sequence[tuple[str, str]] = ()
  bitext: Sequence[tuple[str, str]] = ()
  sts: Sequence[tuple[str, str]] = ()
  split: str = 'test'


def evaluate(open_evaluation: Callable[[], Evaluation], data: Data) -> None:
  """Reads all data, refusing what is bad, and then measures.

  Args:
    open_evaluation: gives the evaluation, whose model is read after the data.
    data: to measure on.

  Raises:
    ValueError, FileNotFoundError: nothing to measure on, or see `eval_data`.
  """
  if not (data.retrieval or data.bitext or data.sts):
    raise ValueError('nothing to measure on: give --retrieval, --bitext or --sts')
  searches = [eval_data.search(name, path, data.split) for name, path in data.retrieval]
  for found in searches:
    text_rows.survey(found.corpus, f'the corpus of {found.name}', bad_rows='leave_out')
  pairs = [p for name, path in data.bitext for p in eval_data.translations(name, path)]
  gold = [p for name, path in data.sts for p in eval_data.similarities(name, path)]
  names = [*(s.name for s in searches), *(_about(p, '').name for p in (*pairs, *gold))]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise ValueError(f'{twice} are there twice: give each a name of its own, NAME=PATH')
  evaluation = open_evaluation()
  for found in searches:
    evaluation.search(found)
  averages: dict[str, list[float]] = {}
  for pair in pairs:
    figures = evaluation.translations(pair)
    averages.setdefault(pair.name, []).append(figures['accuracy'])
  for pair in gold:
    evaluation.similarities(pair)
  for name, values in averages.items():
    if len(values) > 1 and hosts.is_first():
      logger.info('%s: mean accuracy of %d pairs %.2f', name, len(values), float(np.mean(values)))


def _tell_of_missing(data: eval_data.SearchData, ids: Sequence[str]) -> None:
  """Says how many relevant passages nothing can find, as trec_eval's figures do not."""
  there = {*ids}
  graded = [
    (query, own)
    for query, of_query in data.grades.items()
    for own, grade in of_query.items()
    if grade > 0
  ]
  if missing := [(query, own) for query, own in graded if own not in there]:
    query, own = missing[0]
    logger.warning(
      '%s: %d of %d relevant passages are not in the corpus, or have no text there, such as %r of '
      'the query %r: they count as not found. Is the corpus whole, and are these its grades?',
      data.name,
      len(missing),
      len(graded),
      own,
      query,
    )
