"""Rows translated: their columns cut into sentences, each sentence translated once, put together.

A sentence that is there several times, in both columns, in several rows, in an option and as its
answer, has one translation. Where a mark of a protected piece did not come back, the sentence is
translated once more, in the fragments between its protected pieces.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aya_train.translation import (
  documents,
  engine_languages,
  protected_spans,
  quality_gates,
  sentence_batches,
)
from aya_train.translation.engines import Engine
from aya_train.translation.quality_gates import Pair, Thresholds

COLUMNS = ('inputs', 'targets')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How rows are translated.

  Attributes:
    columns: that are translated; the others stay.
    batch_tokens: of a batch, padding included.
    batch_sentences: at most.
    longest: characters of a sentence, see `sentences.split`.
    thresholds: of the gates by language, 'default' for the others.
  """

  columns: tuple[str, ...] = COLUMNS
  batch_tokens: int = 8_192
  batch_sentences: int = 256
  longest: int = 600
  thresholds: Mapping[str, Thresholds] = dataclasses.field(
    default_factory=lambda: {'default': Thresholds()}
  )

  def limits(self, target: engine_languages.Named) -> Thresholds:
    """The thresholds of a language: by the code that was asked for, its ISO 639-3, the default."""
    found = (self.thresholds.get(code) for code in (target.asked, target.code, 'default'))
    return next((each for each in found if each is not None), Thresholds())


@dataclasses.dataclass(frozen=True)
class Translated:
  """What became of a row.

  Attributes:
    source: the row as it was.
    row: with translated columns; of a rejected row, what there is of it.
    reason: of `quality_gates.REASONS`, '' for an accepted row.
    where: column, and the sentence that a gate refused, '' for the whole text.
    ratio: length of the translated columns to the source's, in letters.
  """

  source: Mapping[str, Any]
  row: Mapping[str, Any]
  reason: str
  where: str
  ratio: float

  @property
  def accepted(self) -> bool:
    return not self.reason


@dataclasses.dataclass
class Counts:
  """Of a piece of work; they add up.

  Attributes:
    rows, accepted: rows.
    rejected: by reason.
    sentences, unique: of the rows, and how many were translated.
    tokens: of the unique sentences, in the engine's tokens.
    retried: sentences that lost a mark and were translated in fragments.
  """

  rows: int = 0
  accepted: int = 0
  rejected: Counter[str] = dataclasses.field(default_factory=Counter)
  sentences: int = 0
  unique: int = 0
  tokens: int = 0
  retried: int = 0

  def add(self, other: 'Counts') -> None:
    for field in dataclasses.fields(self):
      mine, theirs = getattr(self, field.name), getattr(other, field.name)
      setattr(self, field.name, mine + theirs)

  def to_json(self) -> dict[str, Any]:
    return {**dataclasses.asdict(self), 'rejected': dict(sorted(self.rejected.items()))}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'Counts':
    return cls(**{**value, 'rejected': Counter(value['rejected'])})


def translate(
  rows: Sequence[Mapping[str, Any]],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  progress: Callable[[int], None] = lambda tokens: None,
) -> tuple[list[Translated], Counts]:
  """Translates rows.

  Args:
    rows: with text in the columns of the settings.
    engine: that translates.
    source, target: languages as the engine has them.
    settings: see there.
    progress: called with the number of tokens of each batch that is done.

  Returns:
    What became of each row, in order, and the counts.

  Raises:
    ValueError: a row lacks a column, or holds no text in it; the engine gave another number of
      translations than it was given sentences.
  """
  cut = [
    {c: documents.pieces(_text(row, c, i), source.code, settings.longest) for c in settings.columns}
    for i, row in enumerate(rows, 1)
  ]
  every = [s for row in cut for parts in row.values() for s in documents.sentences_of(parts)]
  unique = sentence_batches.unique(every)
  counts = Counts(rows=len(rows), sentences=len(every), unique=len(unique))
  made, refused = _sentences(unique, engine, source, target, settings, counts, progress)
  limits = settings.limits(target)
  for sentence, text in made.items():
    if text is not None:
      refused[sentence] = _gate(sentence, text, source, target, limits, True)
  results = []
  for row, parts in zip(rows, cut, strict=True):
    result = _row(row, parts, made, refused, source, target, limits)
    counts.accepted += result.accepted
    counts.rejected.update([result.reason] if result.reason else [])
    results.append(result)
  return results, counts


def _text(row: Mapping[str, Any], column: str, number: int) -> str:
  value = row.get(column)
  if not isinstance(value, str):
    raise ValueError(
      f'row {number}: column {column!r} should be text, got {value!r:.60}; the row has {[*row]}'
    )
  return value


def _sentences(
  unique: Sequence[str],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  counts: Counts,
  progress: Callable[[int], None],
) -> tuple[dict[str, str | None], dict[str, str]]:
  """Translations of sentences, and why some have None: no end, or pieces lost in both ways."""
  masked = {s: protected_spans.mask(s) for s in unique}
  first = _run([m.text for m in masked.values()], engine, source, target, settings, progress)
  counts.tokens += sum(first[1].values())
  answers = {s: first[0][m.text] for s, m in masked.items()}
  made: dict[str, str | None] = {
    s: None if (t := answers[s]) is None else protected_spans.restore(t, m)
    for s, m in masked.items()
  }
  refused = {s: quality_gates.UNFINISHED for s, t in answers.items() if t is None}
  lost = [s for s, t in made.items() if t is None and s not in refused]
  counts.retried += len(lost)
  cut = {s: _fragments(s) for s in lost}
  texts = [core for parts in cut.values() for _, core, _ in parts if core]
  second = _run(texts, engine, source, target, settings, progress)
  counts.tokens += sum(second[1].values())
  for sentence, parts in cut.items():
    if any(core and second[0][core] is None for _, core, _ in parts):
      refused[sentence] = quality_gates.UNFINISHED
      continue
    joined = ''.join(a + ((second[0][core] or '') if core else '') + b for a, core, b in parts)
    pieces = Counter(piece for _, piece in masked[sentence].pieces)
    if any(joined.count(piece) < n for piece, n in pieces.items()):
      refused[sentence] = quality_gates.LOST_PROTECTED
    else:
      made[sentence] = joined
  return made, refused


def _fragments(sentence: str) -> list[tuple[str, str, str]]:
  """(what stays before, what is translated, what stays after); joined, the sentence."""
  made = []
  for piece, fixed in protected_spans.fragments(sentence):
    core = '' if fixed or not any(c.isalpha() for c in piece) else piece.strip()
    if not core:
      made.append((piece, '', ''))
      continue
    at = piece.find(core)
    made.append((piece[:at], core, piece[at + len(core) :]))
  return made


def _run(
  texts: Sequence[str],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  progress: Callable[[int], None],
) -> tuple[dict[str, str | None], dict[str, int]]:
  """Translations and lengths by text."""
  texts = sentence_batches.unique(texts)
  lengths = dict(zip(texts, engine.lengths(texts), strict=True))
  found: dict[str, str | None] = {}
  for batch in sentence_batches.batches(
    texts, [*lengths.values()], tokens=settings.batch_tokens, most=settings.batch_sentences
  ):
    answers = engine.translate(batch, source, target)
    if len(answers) != len(batch):
      raise ValueError(f'{engine.name} gave {len(answers)} translations of {len(batch)} sentences')
    # A line of the source stays one line, whatever a model writes.
    for sentence, answer in zip(batch, answers, strict=True):
      found[sentence] = None if answer is None else documents.one_line(answer)
    progress(sum(lengths[s] for s in batch))
  return found, lengths


def _gate(
  text: str,
  translation: str,
  source: engine_languages.Named,
  target: engine_languages.Named,
  limits: Thresholds,
  is_sentence: bool,
) -> str:
  pair = Pair(text, translation, source.code, target.code, target.script)
  gates = quality_gates.OF_SENTENCES if is_sentence else quality_gates.OF_TEXTS
  return quality_gates.first_failed(pair, limits, gates)


def _row(
  row: Mapping[str, Any],
  parts: Mapping[str, Sequence[documents.Piece]],
  made: Mapping[str, str | None],
  refused: Mapping[str, str],
  source: engine_languages.Named,
  target: engine_languages.Named,
  limits: Thresholds,
) -> Translated:
  texts = {c: documents.join(p, lambda s: made[s] or '') for c, p in parts.items()}
  reason, where = '', ''
  for column, pieces in parts.items():
    bad = next((s for s in documents.sentences_of(pieces) if refused[s]), None)
    if bad is not None:
      reason, where = refused[bad], f'{column}: {bad}'
    elif failed := _gate(row[column], texts[column], source, target, limits, False):
      reason, where = failed, column
    if reason:
      break
  before = sum(quality_gates.weight(row[c]) for c in parts)
  after = sum(quality_gates.weight(text) for text in texts.values())
  ratio = round(after / before, 3) if before else 1.0
  return Translated(row, {**row, **texts}, reason, where, ratio)
