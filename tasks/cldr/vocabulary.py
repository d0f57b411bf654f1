"""Trains SentencePiece files in mT5's layout; the default one, on the CLDR instruction set."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from typing import Any

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2 as spm

from aya_train.tasks import features, storage
from aya_train.tasks.cldr import cldr_builder, cldr_rows

SENTINELS = 100
DEFAULT_SIZE = 4000


def _with_sentinels(trained: bytes) -> bytes:
  """Appends <extra_id_99> ... <extra_id_0>, so that <extra_id_0> has the highest id.

  The trainer puts user-defined symbols after <unk>; mT5 has them at the end.
  """
  model = spm.ModelProto.FromString(trained)
  for i in reversed(range(SENTINELS)):
    piece = f'<extra_id_{i}>'
    model.pieces.add(piece=piece, score=0.0, type=spm.ModelProto.SentencePiece.USER_DEFINED)
    model.trainer_spec.user_defined_symbols.append(piece)
  model.trainer_spec.vocab_size = len(model.pieces)
  return model.SerializeToString(deterministic=True)


def _train(texts: Iterable[str], vocab_size: int) -> bytes:
  trained = io.BytesIO()
  sentencepiece.set_random_generator_seed(0)
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=trained,
    model_type='unigram',
    vocab_size=vocab_size - SENTINELS,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    byte_fallback=True,
    split_digits=True,
    character_coverage=0.99999,
    normalization_rule_name='nmt_nfkc',
    num_threads=1,  # several threads add up the pieces' counts in another order
    minloglevel=1,
  )
  return _with_sentinels(trained.getvalue())


def train_sentencepiece(
  texts: Iterable[str],
  path: str | os.PathLike[str],
  vocab_size: int = DEFAULT_SIZE,
  source: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Trains a vocabulary laid out as mT5's mc4.250000.100extra and writes it with a manifest.

  Unigram model with byte fallback, split digits, character coverage 0.99999 and nmt_nfkc; pad 0,
  eos 1, unk 2, no bos; <extra_id_99> ... <extra_id_0> are the last 100 ids. The same texts in the
  same order give the same bytes.

  Args:
    texts: lines to train on.
    path: file to write; PATH.manifest.json comes beside it. Renamed into place when whole.
    vocab_size: ids in the file, sentinels, bytes and special ids included.
    source: what the texts are, for the manifest.

  Returns:
    The manifest: vocab_size, sentencepiece version, number and SHA-256 of the texts, SHA-256 of
    the file, source.

  Raises:
    RuntimeError: (from SentencePiece) if the texts do not fit the size.
  """
  target = epath.Path(path)
  lines = list(texts)
  content = _train(lines, vocab_size)
  manifest = {
    'vocab_size': vocab_size,
    'sentencepiece': sentencepiece.__version__,
    'texts': len(lines),
    'texts_sha256': hashlib.sha256('\n'.join(lines).encode()).hexdigest(),
    'sha256': hashlib.sha256(content).hexdigest(),
    'source': source or {},
  }
  target.parent.mkdir(parents=True, exist_ok=True)
  storage.write_atomically(
    target.parent / f'{target.name}.manifest.json', json.dumps(manifest, indent=1) + '\n'
  )
  storage.write_atomically(target, content)
  return manifest


def build_default() -> str:
  """Trains the default vocabulary unless it is there, and returns its path.

  Its texts are the inputs and targets of the training split of the CLDR instruction set; it
  builds no data set. About 4,000 ids: no word of any covered language is unknown, rare scripts
  cost about one id a character.
  """
  path = storage.vocabularies_dir() / features.DEFAULT_VOCABULARY
  if not path.exists():
    rows = [row for row in cldr_rows.rows() if row.split == 'train']
    texts = [text for row in rows for text in (row.inputs, row.targets)]
    builder = cldr_builder.CldrInstructions
    source = {'dataset': f'{builder.name}:{builder.VERSION}', 'split': 'train'}
    train_sentencepiece(texts, path, DEFAULT_SIZE, source)
  return str(path)
