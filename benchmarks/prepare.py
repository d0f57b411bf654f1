"""Rows of text a second that are tokenised and written: `aya-train prepare` beside its peers.

    python -m benchmarks.prepare --rows 50000 --vocabulary FILE --json prepare.json

The same built rows are read by each: ours writes prepared files with some workers, or in one
process; SeqIO runs the task's own preprocessors in tf.data; SentencePiece tokenises texts in
memory, and so does the tokenizer of transformers. Texts are sentences of random words of a
vocabulary's own pieces, or lines of `--texts`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import shutil
import tempfile
from typing import Any

from benchmarks import measurement

TASK = 'aya_collection_translated.dolly'


def write_release(folder: pathlib.Path, rows: int, texts: list[str]) -> None:
  """A release of a translated data set, in four files, in the layout that the source has."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  folder.mkdir(parents=True)
  rng = random.Random(0)
  for shard in range(4):
    count = len(range(shard, rows, 4))
    names = {
      'dataset_name': 'Dolly-v2 (T)',
      'task_type': 'question-answering',
      'language': 'yor',
      'script': 'Latn',
      'split': 'train',
    }
    columns: dict[str, list[Any]] = {name: [value] * count for name, value in names.items()}
    columns['id'] = list(range(shard, rows, 4))
    columns['inputs'] = [f'{i} {rng.choice(texts)}' for i in columns['id']]
    columns['targets'] = [rng.choice(texts) for _ in range(count)]
    pq.write_table(pa.table(columns), folder / f'train-{shard:05d}-of-00004.parquet')


def sentences(vocabulary: pathlib.Path, tokens: int, count: int = 2_000) -> list[str]:
  """Texts of about so many tokens of a vocabulary, in all its scripts."""
  import sentencepiece

  model = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
  pieces = [model.IdToPiece(i) for i in range(3, model.GetPieceSize()) if not model.IsControl(i)]
  whole = [p[1:] for p in pieces if p.startswith('▁') and len(p) > 1] or pieces
  rng = random.Random(0)
  return [' '.join(rng.choices(whole, k=tokens)) for _ in range(count)]


def built(folder: str, vocabulary: str) -> Any:
  """The task over the built rows, in a process that reads the benchmark's cache."""
  os.environ |= {'AYA_TRAIN_CACHE': folder, 'AYA_TRAIN_VOCABULARY': vocabulary}
  import seqio

  import aya_train.tasks  # noqa: F401 - registers

  return seqio.TaskRegistry.get(TASK)


def ours(folder: str, vocabulary: str, workers: int) -> measurement.Run:
  built(folder, vocabulary)
  from aya_train.data import prepared_shards
  from aya_train.tasks.building import work_runner

  runner = work_runner.processes(workers)

  def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as target:
      manifest = prepared_shards.prepare_tasks(
        [TASK], 'train', target, num_shards=max(2, workers), runner=runner, say=lambda line: None
      )[TASK]
    tokens = sum(manifest.num_tokens.values())
    return {'rows': manifest.num_examples, 'tokens': tokens / max(1, manifest.num_examples)}

  return run


def of_seqio(folder: str, vocabulary: str) -> measurement.Run:
  task = built(folder, vocabulary)

  def run() -> dict[str, float]:
    dataset = task.get_dataset(None, 'train', shuffle=False)
    return {'rows': sum(1 for _ in dataset.as_numpy_iterator())}

  return run


def _texts(folder: str, vocabulary: str) -> list[list[str]]:
  rows = built(folder, vocabulary).source.get_dataset(split='train', shuffle=False)
  columns: list[list[str]] = [[], []]
  for batch in rows.batch(1024):
    for column, name in zip(columns, ('inputs', 'targets'), strict=True):
      column += [text.decode() for text in batch[name].numpy().tolist()]
  return columns


def of_sentencepiece(folder: str, vocabulary: str) -> measurement.Run:
  import sentencepiece

  columns = _texts(folder, vocabulary)
  model = sentencepiece.SentencePieceProcessor(model_file=vocabulary)

  def run() -> dict[str, float]:
    for column in columns:
      model.Encode(column, out_type=int, num_threads=os.cpu_count() or 1)
    return {'rows': len(columns[0])}

  return run


def of_transformers(folder: str, vocabulary: str) -> measurement.Run:
  import transformers

  columns = _texts(folder, vocabulary)
  tokenizer = transformers.T5TokenizerFast.from_pretrained(
    _tokenizer_folder(folder, vocabulary), extra_ids=0
  )

  def run() -> dict[str, float]:
    for column in columns:
      for start in range(0, len(column), 1000):
        tokenizer(column[start : start + 1000])
    return {'rows': len(columns[0])}

  return run


def _tokenizer_folder(folder: str, vocabulary: str) -> str:
  target = pathlib.Path(folder) / 'tokenizer'
  target.mkdir(exist_ok=True)
  shutil.copy(vocabulary, target / 'spiece.model')
  return str(target)


def build(folder: pathlib.Path, args: argparse.Namespace) -> None:
  """Builds the source, as `aya-train prepare SOURCE` does."""
  if args.texts is None:
    texts = sentences(args.vocabulary, args.tokens)
  else:
    texts = args.texts.read_text(encoding='utf-8').splitlines()
  write_release(folder / 'release/translated_dolly', args.rows, texts)
  os.environ |= {'AYA_TRAIN_CACHE': str(folder), 'AYA_TRAIN_VOCABULARY': str(args.vocabulary)}
  from aya_train.data import prepare

  prepare.build_sources([TASK], prepare.PrepareSettings(data_dir=str(folder / 'release')))


def main() -> None:
  parser = measurement.parser(__doc__, repeats=3)
  parser.add_argument('--rows', type=int, default=50_000)
  parser.add_argument('--workers', type=int, default=2, help='processes of ours')
  parser.add_argument('--tokens', type=int, default=60, help='words of each of the two texts')
  parser.add_argument('--vocabulary', type=pathlib.Path, required=True, help='SentencePiece file')
  parser.add_argument('--texts', type=pathlib.Path, help='a text a line, instead of random words')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    build(pathlib.Path(name), args)
    settings = {'folder': name, 'vocabulary': str(args.vocabulary.resolve())}
    found = measurement.measure(
      measurement.Work('tokenise', args.rows, 'rows'),
      {
        f'ours, {args.workers} workers': (ours, {**settings, 'workers': args.workers}),
        'ours, one process': (ours, {**settings, 'workers': 1}),
        'SeqIO': (of_seqio, settings),
        'SentencePiece alone': (of_sentencepiece, settings),
        'transformers, tokenizer alone': (of_transformers, settings),
      },
      args.repeats,
    )
  measurement.show(found)
  measurement.finish(args, 'prepare', found)


if __name__ == '__main__':
  main()
