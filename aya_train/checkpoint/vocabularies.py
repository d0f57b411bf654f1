"""Which vocabulary a checkpoint's weights belong to, and whether another one has the same ids."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

from etils import epath

from aya_train.checkpoint.hf import hf_tokenizer

# Of ids that may have another piece: some copies of mT5's file spell its sentinels otherwise.
_TOLERATED = 0.01


@dataclasses.dataclass(frozen=True)
class Stored:
  """What a checkpoint says of its vocabulary.

  Attributes:
    fingerprint: as `fingerprints.of_vocabulary`; None where it is not stored.
    file: SentencePiece model or tokenizer.json with the pieces; '' where none is named.
  """

  fingerprint: str | None = None
  file: str = ''


def of_hf(folder: epath.Path) -> Stored:
  """The vocabulary that lies in a Hugging Face folder, as far as there is one."""
  for name in (hf_tokenizer.MODEL_FILE, 'tokenizer.json'):
    if (folder / name).exists():
      return Stored(file=os.fspath(folder / name))
  return Stored()


def fingerprint(path: epath.PathLike) -> str:
  """SHA-256 (hex) of a SentencePiece file, as `fingerprints.of_vocabulary` without extra ids."""
  return fingerprint_of(epath.Path(path).read_bytes())


def fingerprint_of(model: bytes) -> str:
  """The same of the content of such a file."""
  content = [hashlib.sha256(model).hexdigest(), 0]
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pieces(path: epath.PathLike) -> list[str]:
  """The pieces of a SentencePiece model or of a unigram tokenizer.json, by id.

  Raises:
    ValueError: it is neither.
    FileNotFoundError: it is not there.
  """
  import sentencepiece

  path = epath.Path(path)
  content = path.read_bytes()
  try:
    if path.suffix == '.json':
      return [piece for piece, _ in json.loads(content)['model']['vocab']]
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]
  except (ValueError, KeyError, TypeError, RuntimeError) as error:
    raise ValueError(f'{path} holds no pieces of a vocabulary ({error})') from error


def difference(one: Sequence[str], other: Sequence[str]) -> str:
  """In words, how the pieces of two vocabularies differ; '' if at most 1 % of the shared ids do.

  A longer vocabulary whose first ids are those of the other is no difference.
  """
  shared = min(len(one), len(other))
  differing = [i for i in range(shared) if one[i] != other[i]]
  if len(differing) <= _TOLERATED * shared:
    return ''
  # The first letters are bytes in many vocabularies; a word tells more.
  example = differing[len(differing) // 2]
  return (
    f'{len(differing):,} of {shared:,} ids mean something else, {example} for one: '
    f'{one[example]!r} and {other[example]!r}'
  )
