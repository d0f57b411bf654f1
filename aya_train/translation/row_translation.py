"""Rows translated: their columns cut into sentences, each sentence translated once, put together.

A sentence that is there several times, in both columns, in several rows, in an option and as its
answer, has one translation. Where a mark of a protected piece did not come back, the sentence is
translated once more, in the fragments between its protected pieces.
"""

import collections
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aya_train.tasks.languages import language_codes
from aya_train.translation import (
  documents,
  engine_languages,
  protected_spans,
  quality_gates,
  scorers,
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
    scorer: 'MODULE:FUNCTION' of `scorers`, '' for none.
  """

  columns: tuple[str, ...] = COLUMNS
  batch_tokens: int = 8_192
  batch_sentences: int = 256
  longest: int = 600
  thresholds: Mapping[str, Thresholds] = dataclasses.field(
    default_factory=lambda: {'default': Thresholds()}
  )
  scorer: str = ''

  def limits(self, target: engine_languages.Named) -> Thresholds:
    """The thresholds of a language: by the code that was asked for, its own, the default."""
    if target.asked in self.thresholds:
      return self.thresholds[target.asked]
    for code, limits in self.thresholds.items():
      if code != 'default' and _is(code, target):
        return limits
    return self.thresholds.get('default', Thresholds())


def _is(code: str, target: engine_languages.Named) -> bool:
  variety = language_codes.resolve(code)
  return (variety.code, variety.script) == (target.code, target.script)


@dataclasses.dataclass(frozen=True)
class Translated:
  """What became of a row.

  Attributes:
    source: the row as it was.
    row: with translated columns; of a rejected row, what there is of it.
    reason: of `quality_gates.REASONS`, '' for an accepted row.
    where: column, and the sentence that a gate refused, '' for the whole text.
    ratio: length of the translated columns to the source's, in letters.
    chrf: of the way back to the source's sentences, None where it was not made.
    score: of the named scorer, the lowest of the columns; None without one.
  """

  source: Mapping[str, Any]
  row: Mapping[str, Any]
  reason: str
  where: str
  ratio: float
  chrf: float | None = None
  score: float | None = None

  @property
  def accepted(self) -> bool:
    return not self.reason


@dataclasses.dataclass
class Counts:
  """Of a piece of work; they add up.

  Attributes:
    rows, accepted: rows.
    rejected: by reason.
    sentences, unique: of the rows, and how many were translated with them.
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


@dataclasses.dataclass(frozen=True)
class Known:
  """Translations that were made before, by what the engine was given; None where it did not end.

  Attributes:
    there: into the target.
    back: from it.
  """

  there: dict[str, str | None]
  back: dict[str, str | None]


NOTHING = Known({}, {})


def translate(
  rows: Sequence[Mapping[str, Any]],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  way_back: 'WayBack | None' = None,
  known: Known = NOTHING,
) -> tuple[list[Translated], Counts]:
  """Translates rows.

  Args:
    rows: with text in the columns of the settings; a row that is empty in one is rejected.
    engine: that translates.
    source, target: languages as the engine has them.
    settings: see there.
    way_back: what translates back, for that gate; None without it.
    known: what is not translated again.

  Returns:
    What became of each row, in order, and the counts.

  Raises:
    ValueError: the engine gave another number of translations than it was given sentences, or the
      scorer of scores.
  """
  cut = [_cut(row, source.code, settings) for row in rows]
  every = [s for row in cut for parts in row.values() for s in documents.sentences_of(parts)]
  unique = sentence_batches.unique(every)
  counts = Counts(rows=len(rows), sentences=len(every))
  made, refused, _ = _sentences(
    unique, engine, source, target, settings, counts, known=known.there, counted=True
  )
  limits = settings.limits(target)
  for sentence, text in made.items():
    if text is not None:
      refused[sentence] = _gate(sentence, text, source, target, limits, True)
  results = [
    _row(row, parts, made, refused, source, target, limits)
    for row, parts in zip(rows, cut, strict=True)
  ]
  if way_back is not None:
    results = _with_way_back(results, cut, made, way_back, settings, limits, counts, known)
  if settings.scorer:
    results = _with_scores(results, settings, source, target, limits)
  for result in results:
    counts.accepted += result.accepted
    counts.rejected.update([result.reason] if result.reason else [])
  return results, counts


def inputs(rows: Sequence[Mapping[str, Any]], language: str, settings: Settings) -> dict[str, str]:
  """What the engine is given for rows, each once, and the first sentence that it is made of."""
  made: dict[str, str] = {}
  for row in rows:
    for parts in _cut(row, language, settings).values():
      for sentence in documents.sentences_of(parts):
        made.setdefault(protected_spans.mask(sentence).text, sentence)
  return made


def translate_sentences(
  sentences: Sequence[str],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  way_back: 'WayBack | None' = None,
) -> tuple[Known, Counts]:
  """Translates sentences, each once, for `translate` to know.

  Args:
    sentences: of `inputs`.
    engine, source, target, settings, way_back: as of `translate`.

  Raises:
    ValueError: the engine gave another number of translations than it was given sentences.
  """
  counts = Counts()
  made, _, there = _sentences(sentences, engine, source, target, settings, counts, counted=True)
  if way_back is None:
    return Known(there, {}), counts
  texts = sentence_batches.unique(text for text in made.values() if text is not None)
  _, _, back = _sentences(
    texts, way_back.engine, way_back.source, way_back.target, settings, counts
  )
  return Known(there, back), counts


def _cut(
  row: Mapping[str, Any], language: str, settings: Settings
) -> dict[str, list[documents.Piece]]:
  return {
    c: documents.pieces(text_of(row, c), language, settings.longest) for c in settings.columns
  }


@dataclasses.dataclass(frozen=True)
class WayBack:
  """What translates from the target to the source.

  Attributes:
    engine: that does.
    source, target: languages as it has them; its source is the target of the rows.
  """

  engine: Engine
  source: engine_languages.Named
  target: engine_languages.Named


def _with_way_back(
  results: Sequence[Translated],
  cut: Sequence[Mapping[str, Sequence[documents.Piece]]],
  made: Mapping[str, str | None],
  way_back: WayBack,
  settings: Settings,
  limits: Thresholds,
  counts: Counts,
  known: Known,
) -> list[Translated]:
  """Accepted rows with the chrF of their way back, rejected where it is too low."""
  sentences = [
    [s for parts in row.values() for s in documents.sentences_of(parts)] if result.accepted else []
    for result, row in zip(results, cut, strict=True)
  ]
  texts = sentence_batches.unique(made[s] or '' for row in sentences for s in row)
  back, _, _ = _sentences(
    texts, way_back.engine, way_back.source, way_back.target, settings, counts, known=known.back
  )
  checked = []
  for result, row in zip(results, sentences, strict=True):
    if row:
      returned = ' '.join(back[made[s] or ''] or '' for s in row)
      value = quality_gates.chrf(' '.join(row), returned)
      result = dataclasses.replace(result, chrf=value)
      if value < limits.min_chrf:
        result = dataclasses.replace(
          result, reason=quality_gates.BACK_TRANSLATION, where=f'{returned:.200}'
        )
    checked.append(result)
  return checked


def _with_scores(
  results: Sequence[Translated],
  settings: Settings,
  source: engine_languages.Named,
  target: engine_languages.Named,
  limits: Thresholds,
) -> list[Translated]:
  """Accepted rows with their scores, rejected where a column's is too low."""
  columns = settings.columns
  pairs = [(r.source[c], r.row[c]) for r in results if r.accepted for c in columns]
  found = iter(scorers.scores(settings.scorer, pairs, source.code, target.code))
  checked = []
  for result in results:
    if result.accepted:
      of_columns = [next(found) for _ in columns]
      value = min(of_columns)
      result = dataclasses.replace(result, score=value)
      if value < limits.min_score:
        where = columns[of_columns.index(value)]
        result = dataclasses.replace(result, reason=quality_gates.LOW_SCORE, where=where)
    checked.append(result)
  return checked


def text_of(row: Mapping[str, Any], column: str) -> str:
  """The text of a column; '' where there is none, or none that can be written."""
  value = row.get(column)
  return value if isinstance(value, str) and _is_sound(value) else ''


def _is_sound(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return '\0' not in text and bool(text.strip())


def _sentences(
  unique: Sequence[str],
  engine: Engine,
  source: engine_languages.Named,
  target: engine_languages.Named,
  settings: Settings,
  counts: Counts,
  *,
  known: Mapping[str, str | None] = NOTHING.there,
  counted: bool = False,
) -> tuple[dict[str, str | None], dict[str, str], dict[str, str | None]]:
  """Translates sentences.

  Returns:
    Translations; why some have None: no end, or pieces lost in both ways; and what the engine gave
    for each text that it was given.
  """
  masked = {s: protected_spans.mask(s) for s in unique}
  first = _run([m.text for m in masked.values()], engine, source, target, settings, known)
  counts.tokens += sum(first[1].values())
  counts.unique += len([s for s in unique if masked[s].text not in known]) if counted else 0
  answers = {s: first[0][m.text] for s, m in masked.items()}
  made: dict[str, str | None] = {
    s: None if (t := answers[s]) is None else protected_spans.restore(t, m)
    for s, m in masked.items()
  }
  refused = {s: quality_gates.UNFINISHED for s, t in answers.items() if t is None}
  lost = [s for s, t in made.items() if t is None and s not in refused]
  counts.retried += len([s for s in lost if masked[s].text not in known])
  cut = {s: _fragments(s) for s in lost}
  texts = [core for parts in cut.values() for _, core, _ in parts if core]
  second = _run(texts, engine, source, target, settings, _either(first[0], known))
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
  return made, refused, {**first[0], **second[0]}


def _either(
  first: Mapping[str, str | None], known: Mapping[str, str | None]
) -> Mapping[str, str | None]:
  return collections.ChainMap(dict(first), known)  # type: ignore[arg-type]


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
  known: Mapping[str, str | None],
) -> tuple[dict[str, str | None], dict[str, int]]:
  """Translations by text, those that are known too; and lengths of the others."""
  every = sentence_batches.unique(texts)
  found = {text: known[text] for text in every if text in known}
  texts = [text for text in every if text not in known]
  lengths = dict(zip(texts, engine.lengths(texts), strict=True))
  for batch in sentence_batches.batches(
    texts, [*lengths.values()], tokens=settings.batch_tokens, most=settings.batch_sentences
  ):
    answers = engine.translate(batch, source, target)
    if len(answers) != len(batch):
      raise ValueError(f'{engine.name} gave {len(answers)} translations of {len(batch)} sentences')
    # A line of the source stays one line, whatever a model writes.
    for sentence, answer in zip(batch, answers, strict=True):
      found[sentence] = None if answer is None else documents.one_line(answer)
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
  before = sum(quality_gates.weight(text_of(row, c)) for c in parts)
  after = sum(quality_gates.weight(text) for text in texts.values())
  ratio = round(after / before, 3) if before else 1.0
  reason, where = _refusal(row, parts, texts, refused, source, target, limits)
  return Translated(row, {**row, **texts}, reason, where, ratio)


def _refusal(
  row: Mapping[str, Any],
  parts: Mapping[str, Sequence[documents.Piece]],
  texts: Mapping[str, str],
  refused: Mapping[str, str],
  source: engine_languages.Named,
  target: engine_languages.Named,
  limits: Thresholds,
) -> tuple[str, str]:
  """The reason why a row is rejected, and where; two empty texts if it is not."""
  for column, pieces in parts.items():
    if not text_of(row, column):
      return quality_gates.EMPTY_SOURCE, column
    bad = next((s for s in documents.sentences_of(pieces) if refused[s]), None)
    if bad is not None:
      return refused[bad], f'{column}: {bad}'
    if failed := _gate(row[column], texts[column], source, target, limits, False):
      return failed, column
  if {*COLUMNS} <= {*parts}:
    inputs, targets = ((row[c], texts[c]) for c in COLUMNS)
    if quality_gates.answer_lost(inputs, targets, limits):
      return quality_gates.NO_ANSWER, f'targets: {texts["targets"]}'
  return '', ''
