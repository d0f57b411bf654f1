"""What a reference model says of prepared pairs, kept beside them.

A reference model scores each pair once (`aya-train score`), and is not needed any more when a
policy is trained. Its scores lie in the folder of the prepared task:

  DIRECTORY/TASK/SPLIT-VOCABULARY-DEFINITION/references/CHECKPOINT-LENGTHS/manifest.json
                                                                         /scores.npy

CHECKPOINT is the identity of the reference's files. LENGTHS are the tokens that each feature was
cut to, since an answer that is cut elsewhere has another likelihood. Until all are there, parts of
them lie in the folder: whoever was stopped goes on after the last one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from aya_train import path_facts, signed_json
from aya_train.data import pair_features, prepared
from aya_train.tasks import storage

logger = logging.getLogger(__name__)
FEATURE = 'reference'
UNRELATED = 'unrelated'
FOLDER = 'references'
MANIFEST = 'manifest.json'
SCORES_FILE = 'scores.npy'
FORMAT = 2
_SEAL = hashlib.sha256().digest_size
_UNSIGNED = 1  # an earlier format, whose manifest has no digest of its own
TEXT = ('inputs', *pair_features.PAIR)
"""Features of a record that are scored; what else is read of it is made of them and the scores."""


@dataclasses.dataclass(frozen=True)
class Reference:
  """A checkpoint that pairs are held against.

  Attributes:
    path: where it lies, or lay.
    identity: of its files (checkpoint_identity.of); '' where it is no longer there: then scores
      that were made of this path are taken.
  """

  path: str
  identity: str


def folder(
  task: prepared.PreparedTask, identity: str, lengths: Mapping[str, int], *, unrelated: bool
) -> epath.Path:
  """Where a reference's scores of a prepared task lie.

  Args:
    task: what is scored.
    identity: of the reference's files.
    lengths: at least those of TEXT.
    unrelated: whether answers of other prompts are scored, too.
  """
  numbers = 'x'.join(str(lengths[name]) for name in TEXT)
  return task.directory / FOLDER / f'{identity}-{numbers}{"-unrelated" if unrelated else ""}'


class ScoredTask(prepared.PreparedTask):
  """A prepared task whose examples have a reference's scores, an answer to another prompt, or both.

  Attributes:
    reference_identity: of the checkpoint whose scores they are, '' without scores.

  Args:
    directory: of the prepared task.
    where: the scores, None for none.
    unrelated: whether examples have an answer to another prompt.

  Raises:
    ValueError: the scores are damaged.
  """

  def __init__(self, directory: epath.PathLike, where: epath.Path | None, *, unrelated: bool):
    super().__init__(directory)
    self._unrelated = unrelated
    self._scores: np.ndarray | None = None
    self.reference_identity = ''
    lengths, definition = dict(self.manifest.lengths), self.manifest.definition
    if where is not None:
      manifest, self._scores = _read(where, len(self))
      lengths[FEATURE] = {len(pair_features.SCORES): len(self)}
      self.reference_identity = manifest['checkpoint']['identity']
      # Another reference is another stream of data.
      definition = f'{definition} {self.reference_identity}'
    if unrelated:
      lengths[UNRELATED] = _unrelated_lengths(lengths)
    self.manifest = dataclasses.replace(
      self.manifest,
      lengths=lengths,
      eos_after_trim=eos_after_trim(self.manifest),
      num_tokens={f: sum(n * times for n, times in lengths[f].items()) for f in lengths},
      definition=definition,
    )

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    example = super().__getitem__(index)
    if self._unrelated:
      example[UNRELATED] = answer_of(super().__getitem__(_before(index, len(self))))
    if self._scores is not None:
      example[FEATURE] = pair_features.as_integers(self._scores[index])
    return example


def _read(where: epath.Path, count: int) -> tuple[dict[str, Any], np.ndarray]:
  """The manifest of scores, and the scores, float32 [count, len(SCORES)]."""
  manifest = read_manifest(where)
  try:
    content = (where / SCORES_FILE).read_bytes()
    scores = np.load(io.BytesIO(content), allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise ValueError(f'{where / SCORES_FILE}: {error}. {_remedy(where)}') from error
  if hashlib.sha256(content).hexdigest() != manifest['scores_sha256']:
    raise ValueError(f'{where / SCORES_FILE} is not what was written. {_remedy(where)}')
  if scores.shape != (count, len(pair_features.SCORES)):
    raise ValueError(
      f'{where}: scores {list(scores.shape)}, expected those of {count} examples. {_remedy(where)}'
    )
  return manifest, scores


def eos_after_trim(manifest: prepared.Manifest) -> dict[str, int]:
  """`Manifest.eos_after_trim`, with the answer to another prompt, which is cut as its own is."""
  found = dict(manifest.eos_after_trim)
  return {**found, **({UNRELATED: found['chosen']} if 'chosen' in found else {})}


def with_unrelated(task: prepared.PreparedTask, index: int) -> dict[str, np.ndarray]:
  """An example with an answer to another prompt: that of the example before, as TRL cycles them."""
  return {**task[index], UNRELATED: answer_of(task[_before(index, len(task))])}


def answer_of(example: Mapping[str, np.ndarray]) -> np.ndarray:
  """The answer of an example, the chosen one if it has both."""
  return example['chosen'] if len(example['chosen']) else example['rejected']


def _before(index: int, count: int) -> int:
  return index - 1 if index else count - 1


def _unrelated_lengths(lengths: Mapping[str, Mapping[int, int]]) -> dict[int, int]:
  """About how long they are: those of both sides, without what is missing."""
  found: dict[int, int] = {}
  for side in pair_features.PAIR:
    for length, count in lengths[side].items():
      if length:
        found[length] = found.get(length, 0) + count
  return dict(sorted(found.items()))


def read_manifest(where: epath.Path) -> dict[str, Any]:
  """What is said of scores.

  Raises:
    FileNotFoundError: there are none, or not all of them.
    ValueError: it is damaged.
  """
  path = where / MANIFEST
  if not path.exists():
    raise FileNotFoundError(f'no scores in {where}')
  try:
    found = json.loads(path.read_bytes())
    if found['format'] == _UNSIGNED:
      found['scores_sha256'] = found['sha256']
    elif found['format'] == FORMAT:
      found = signed_json.load(path.read_bytes())
    else:
      raise ValueError(f'format {found["format"]}, this program reads {FORMAT}')
    digest, checkpoint = str(found['scores_sha256']), dict(found['checkpoint'])
    if missing := {'path', 'identity', 'lengths', 'unrelated'} - {*checkpoint, *found}:
      raise ValueError(f'it does not say {", ".join(sorted(missing))}')
    return {**found, 'checkpoint': checkpoint, 'scores_sha256': digest}
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise ValueError(f'{path} is damaged ({error}). {_remedy(where)}') from error


def _remedy(where: epath.Path) -> str:
  return f'Delete {where} and let `aya-train score` make it anew'


def scored(
  task: prepared.PreparedTask,
  name: str,
  reference: Reference,
  lengths: Mapping[str, int],
) -> ScoredTask:
  """A prepared task with a reference's scores.

  Args:
    task: the task; `name` of it and its split, for messages.
    reference: whose scores.
    lengths: tokens of each feature that is read, UNRELATED among them if it is.

  Raises:
    FileNotFoundError: this reference has not scored it at these lengths; with those that have.
    ValueError: the scores are damaged, or of several references that lay at the same path.
  """
  unrelated = UNRELATED in lengths
  if reference.identity:
    where = folder(task, reference.identity, lengths, unrelated=unrelated)
    if not (where / MANIFEST).exists() and not unrelated:
      # Those with answers of other prompts say the same of the pairs.
      more = folder(task, reference.identity, lengths, unrelated=True)
      where = more if (more / MANIFEST).exists() else where
    if (where / MANIFEST).exists():
      return ScoredTask(task.directory, where, unrelated=unrelated)
    there = [_told(found) for _, found in _all(task)]
    raise FileNotFoundError(
      f'{name} has no scores of the reference {reference.path} ({reference.identity}) at the '
      f'lengths {_texts(lengths)}{" with answers of other prompts" if unrelated else ""}; it has '
      f'those of {"; ".join(there) or "none"}. `aya-train score` with the same gin files makes '
      'them; REFERENCE_CHECKPOINT_PATH names the reference'
    )
  known = [
    (where, found)
    for where, found in _all(task)
    if found['checkpoint'].get('path') == reference.path
    and found['lengths'] == _texts(lengths)
    and found['unrelated'] >= unrelated
  ]
  if len({found['checkpoint']['identity'] for _, found in known}) != 1:
    raise FileNotFoundError(
      f'the reference {reference.path} is not there, and '
      + ('several' if known else 'no')
      + f' scores of {name} were made of it: give the path of the reference '
      '(REFERENCE_CHECKPOINT_PATH)'
    )
  return ScoredTask(task.directory, known[0][0], unrelated=unrelated)


def _texts(lengths: Mapping[str, int]) -> dict[str, int]:
  return {name: lengths[name] for name in TEXT}


def _all(task: prepared.PreparedTask) -> list[tuple[epath.Path, dict[str, Any]]]:
  root = task.directory / FOLDER
  folders = sorted(root.iterdir()) if root.exists() else []
  return [(where, read_manifest(where)) for where in folders if (where / MANIFEST).exists()]


def _told(found: Mapping[str, Any]) -> str:
  checkpoint = found['checkpoint']
  more = ' with answers of other prompts' if found['unrelated'] else ''
  return f'{checkpoint["path"]} ({checkpoint["identity"]}) at {found["lengths"]}{more}'


class ScoresWriter:
  """Scores of a task, written part by part; the parts that an earlier process wrote are kept.

  Attributes:
    done: examples of which the scores are there.
  """

  def __init__(self, where: epath.Path, count: int):
    self._where, self._count = where, count
    self._parts: list[np.ndarray] = []
    where.mkdir(parents=True, exist_ok=True)
    storage.remove_leftovers(where)
    self.done = 0
    while (path := self._part(self.done)).exists():
      try:
        part = np.load(io.BytesIO(_unsealed(path.read_bytes())), allow_pickle=False)
      except (ValueError, EOFError) as error:  # as a disk that was full leaves one
        logger.warning('%s is not what was written (%s): it is scored again', path, error)
        break
      self._parts.append(part)
      self.done += len(part)

  def _part(self, begin: int) -> epath.Path:
    return self._where / f'part-{begin:012d}.npy'

  def write(self, scores: np.ndarray) -> None:
    """Adds the scores of the next examples, float32 [N, len(SCORES)]."""
    storage.write_atomically(self._part(self.done), _sealed(_bytes(scores)))
    self._parts.append(scores)
    self.done += len(scores)

  def finish(self, about: Mapping[str, Any]) -> None:
    """Joins the parts and writes the manifest.

    Args:
      about: what the manifest says beside format, count and hash: `checkpoint` with `path` and
        `identity`, `lengths` of TEXT, `unrelated`.
    """
    content = _bytes(np.concatenate(self._parts).astype(np.float32))
    storage.write_atomically(self._where / SCORES_FILE, content)
    manifest = {
      'format': FORMAT,
      **about,
      'num_examples': self.done,
      'columns': list(pair_features.SCORES),
      'scores_sha256': hashlib.sha256(content).hexdigest(),
    }
    storage.write_atomically(self._where / MANIFEST, signed_json.dump(manifest, indent=1))
    for path in path_facts.matching(self._where, 'part-*.npy'):
      path.unlink(missing_ok=True)


def _bytes(scores: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, scores, allow_pickle=False)
  return file.getvalue()


def _sealed(content: bytes) -> bytes:
  """Content with its SHA-256 behind it."""
  return content + hashlib.sha256(content).digest()


def _unsealed(content: bytes) -> bytes:
  """Raises ValueError if it is not what `_sealed` gave."""
  content, told = content[:-_SEAL], content[-_SEAL:]
  if hashlib.sha256(content).digest() != told:
    raise ValueError('its digest differs')
  return content
