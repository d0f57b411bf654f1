"""A tokenizer folder for transformers that yields the ids of a T5 SentencePiece model.

transformers' own T5 tokenizer drops byte fallback (5.x rebuilds it so even from a tokenizer.json),
collapses the text at white space and appends extra ids. So the folder names the generic class,
`PreTrainedTokenizerFast`, which takes tokenizer.json as it is; load it with `AutoTokenizer`.

tokenizer.json differs from transformers' conversion in three ways, each for the sake of equal ids:

* Pieces. Control, byte, unused and unknown pieces never match text in SentencePiece, and
  user-defined ones (mT5's sentinels are such) always do. Here scores say so. '</s>' in a text is
  text, as in training: `split_special_tokens` is set.
* Normalisation. The `Precompiled` step of `tokenizers` takes a base with its accents as one unit
  and loses all but the first rule that fits: 'e' + dot below + acute comes out without its acute.
  Private marks split such units before it, and composition follows in steps that each join a
  character with one accent, as SentencePiece's rules do, without reordering accents as NFC would.
* White space is collapsed and marked by the normaliser, before any splitting.

Known differences: the noncharacters U+FDD0 and U+FDD1 are dropped from text (they are the private
marks); U+0344 composes with a preceding letter; where two segmentations score the same, the other
one may be taken ('fififi'); '</s>' or '<0x41>' in a text is the special piece if the vocabulary has
no piece for one of their characters (T5's English one lacks '<'). transformers 5's T5Tokenizer,
called by name instead of AutoTokenizer, rebuilds the tokenizer its own way and loses all of this.
"""

import base64
import functools
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

SPACE = '▁'
MODEL_FILE = 'spiece.model'
# Noncharacters: never in well-formed text, no accents, untouched by SentencePiece's rules.
_SPLIT, _KEEP_APART = '\ufdd0', '\ufdd1'
_START, _END, _ANY = r'(?<![\s\S])', r'(?![\s\S])', r'[\s\S]'
_UNIGRAM = 1
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTE_PIECE = re.compile('<0x[0-9A-F]{2}>')
_COMPOSED_BY_RULES = ('nfkc', 'nmt_nfkc')
# The longest chain of accents that compose one after the other is three (Greek).
_COMPOSITION_STEPS = 3


def read_vocabulary(path: epath.PathLike) -> Any:
  """Parses a SentencePiece model (a `sentencepiece_model_pb2.ModelProto`).

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is no unigram model with T5's padding 0 and eos 1, or it marks words by suffix.
  """
  from sentencepiece import sentencepiece_model_pb2

  path = epath.Path(path)
  if not path.exists():
    raise FileNotFoundError(f'no SentencePiece model at {path}')
  try:
    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    if not model.pieces:
      raise ValueError('it has no pieces')
  except Exception as error:
    raise ValueError(
      f'{path} is no SentencePiece model ({error}). Copy it again from its source'
    ) from error
  spec = model.trainer_spec
  if spec.model_type != _UNIGRAM or spec.treat_whitespace_as_suffix:
    raise ValueError(f'{path}: only unigram models with a space mark before words can be exported')
  if (spec.pad_id, spec.eos_id) != (0, 1) or spec.unk_id < 0:
    raise ValueError(
      f'{path}: a T5 vocabulary has padding 0, eos 1 and an unknown piece, got padding '
      f'{spec.pad_id}, eos {spec.eos_id}, unknown {spec.unk_id}'
    )
  return model


def write(vocabulary_file: epath.PathLike, folder: epath.PathLike) -> None:
  """Writes tokenizer.json, its two settings files and the SentencePiece model as spiece.model."""
  folder = epath.Path(folder)
  model = read_vocabulary(vocabulary_file)
  pieces = [piece.piece for piece in model.pieces]
  spec = model.trainer_spec
  special = {
    'eos_token': pieces[spec.eos_id],
    'pad_token': pieces[spec.pad_id],
    'unk_token': pieces[spec.unk_id],
  }
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    **special,
    'extra_ids': 0,
    'split_special_tokens': True,
    'clean_up_tokenization_spaces': False,
    'model_input_names': ['input_ids', 'attention_mask'],
  }
  (folder / MODEL_FILE).write_bytes(epath.Path(vocabulary_file).read_bytes())
  (folder / 'tokenizer.json').write_text(build(model).to_str())
  for name, content in (
    ('tokenizer_config.json', settings),
    ('special_tokens_map.json', special),
  ):
    (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def build(model: Any) -> Any:
  """The `tokenizers.Tokenizer` of a SentencePiece model; appends eos to what it encodes."""
  import tokenizers
  from tokenizers import decoders, models, processors

  spec = model.trainer_spec
  tokenizer = tokenizers.Tokenizer(
    models.Unigram(_scores(model.pieces), unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
  )
  tokenizer.normalizer = _normalizer(model.normalizer_spec)
  eos = model.pieces[spec.eos_id].piece
  tokenizer.post_processor = processors.TemplateProcessing(
    single=['$A', eos], pair=['$A', eos, '$B', eos], special_tokens=[(eos, spec.eos_id)]
  )
  steps = [decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()]
  if model.normalizer_spec.add_dummy_prefix:
    steps.append(decoders.Strip(' ', 1, 0))
  tokenizer.decoder = decoders.Sequence(steps)
  tokenizer.add_special_tokens(
    [
      tokenizers.AddedToken(model.pieces[i].piece, special=True, normalized=False)
      for i in (spec.pad_id, spec.eos_id, spec.unk_id)
    ]
  )
  return tokenizer


def rebuilt(content: Mapping[str, Any]) -> Any | None:
  """The SentencePiece model that `build` made a tokenizer.json of; None if that is not certain.

  transformers keeps tokenizer.json alone where it saves such a tokenizer again. Whatever is read
  here is built anew, and must give the same file.
  """
  from sentencepiece import sentencepiece_model_pb2

  try:
    inner, steps = content['model'], content['normalizer']['normalizers']
    scores = [score for _, score in inner['vocab']]
    highest, never = max(scores), scores[0]
    model = sentencepiece_model_pb2.ModelProto()
    spec, normal = model.trainer_spec, model.normalizer_spec
    spec.model_type, spec.vocab_size = _UNIGRAM, len(scores)
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, inner['unk_id'], -1
    spec.byte_fallback = bool(inner['byte_fallback'])
    for i, (piece, score) in enumerate(inner['vocab']):
      kind = _NORMAL
      if i in (spec.pad_id, spec.eos_id):
        kind = _CONTROL
      elif i == spec.unk_id:
        kind = _UNKNOWN
      elif _is_near(score, never):
        kind = _BYTE if spec.byte_fallback and _BYTE_PIECE.fullmatch(piece) else _UNUSED
      elif _is_near(score, _defined_score(piece, highest)):
        kind = _USER_DEFINED
      model.pieces.add(piece=piece, score=score if kind == _NORMAL else 0.0, type=kind)
    kinds = [step['type'] for step in steps]
    charsmap = [step['precompiled_charsmap'] for step in steps if step['type'] == 'Precompiled']
    if charsmap:
      normal.precompiled_charsmap = base64.b64decode(charsmap[0])
    normal.name = _COMPOSED_BY_RULES[-1] if 'NFC' in kinds else 'identity'
    normal.add_dummy_prefix = kinds[-1] == 'Prepend'
    patterns = [step.get('pattern') for step in steps]
    normal.remove_extra_whitespaces = {'Regex': f'{SPACE}+'} in patterns
    normal.escape_whitespaces = True
    made = json.loads(build(model).to_str())
  except (KeyError, TypeError, ValueError, IndexError, AttributeError):
    return None
  of_both = zip(made['model']['vocab'], inner['vocab'], strict=True)
  same_scores = all(_is_near(mine, theirs) for (_, mine), (_, theirs) in of_both)
  parts = ('normalizer', 'pre_tokenizer', 'decoder', 'post_processor')
  return model if same_scores and all(made[k] == content.get(k) for k in parts) else None


def _is_near(one: float, other: float) -> bool:
  """Whether two scores are one number in float32."""
  return math.isclose(one, other, rel_tol=1e-6)


def _defined_score(piece: str, highest: float) -> float:
  return len(piece.encode()) * highest - 0.1  # sentencepiece, unigram_model.cc


def _scores(pieces: Any) -> list[tuple[str, float]]:
  """Each piece with the score that makes the Viterbi search treat it as SentencePiece does."""
  normal = [piece.score for piece in pieces if piece.type == _NORMAL]
  lowest, highest = min(normal), max(normal)
  # Below any other segmentation of the piece's own few characters, unknown ones (-10) included.
  never = 10 * (lowest - 10)

  def score(piece: Any) -> float:
    if piece.type == _USER_DEFINED:
      return _defined_score(piece.piece, highest)
    return piece.score if piece.type == _NORMAL else never

  return [(piece.piece, score(piece)) for piece in pieces]


def _normalizer(spec: Any) -> Any:
  from tokenizers import Regex, normalizers

  def replace(pattern: str, content: str) -> Any:
    return normalizers.Replace(Regex(pattern), content)

  steps: list[Any] = []
  if spec.precompiled_charsmap:
    steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
  if spec.precompiled_charsmap and spec.name in _COMPOSED_BY_RULES:
    # `(?<=any)`: an empty match at the very start upsets the bookkeeping of later steps.
    steps.insert(0, replace(f'(?={_EXTENDS})(?<={_closed()})', _KEEP_APART))
    steps.insert(1, replace(f'(?={_EXTENDS})(?<={_ANY})', _SPLIT))
    steps.append(normalizers.Replace(_SPLIT, ''))
    for _ in range(_COMPOSITION_STEPS):
      steps += [
        replace(_uncomposable(), _SPLIT),
        normalizers.NFC(),
        normalizers.Replace(_SPLIT, ''),
      ]
    steps.append(normalizers.Replace(_KEEP_APART, ''))
  steps.append(normalizers.Replace(' ', SPACE))
  if spec.remove_extra_whitespaces:
    steps.append(replace(f'{SPACE}+', SPACE))
    steps.append(replace(f'{_START}{SPACE}|{SPACE}{_END}', ''))
  if spec.add_dummy_prefix:
    steps.append(normalizers.Prepend(SPACE))
  return normalizers.Sequence(steps)


# Accents, halfwidth kana voicing marks, and Hangul vowels and finals: what joins the one before.
_EXTENDS = '[\\p{M}\uff9e\uff9f\u1160-\u11ff]'


@functools.cache
def _characters() -> tuple[str, ...]:
  return tuple(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


@functools.cache
def _closed() -> str:
  """Class of the characters of a text that take no following accent, in SentencePiece's rules.

  They are composed already, or compatibility characters that become several.
  """
  compatibility = [c for c in _characters() if unicodedata.decomposition(c).startswith('<')]
  composed = [c for c in _characters() if len(unicodedata.normalize('NFD', c)) > 1]
  expanding = [c for c in compatibility if len(unicodedata.normalize('NFKC', c)) > 1]
  return _class(composed + expanding)


@functools.cache
def _uncomposable() -> str:
  """Matches between two characters that NFC would compose or reorder and SentencePiece would not.

  That is between two accents, unless they compose with each other, and between a character that
  was just composed and an accent of a lower combining class than its own last one.
  """
  decomposed = {
    c: unicodedata.normalize('NFD', c)
    for c in _characters()
    if unicodedata.decomposition(c)
    and unicodedata.normalize('NFD', c) != unicodedata.normalize('NFC', c) == c
  }
  first = {chr(int(unicodedata.decomposition(c).split()[0], 16)) for c in decomposed}
  opening_marks = _class(c for c in first if unicodedata.category(c).startswith('M'))
  alternatives = [rf'(?<=\p{{M}})(?<!{opening_marks})']
  classes = {c: unicodedata.combining(nfd[-1]) for c, nfd in decomposed.items()}
  for combining in sorted(set(classes.values()) - {0}):
    lower = [c for c in _characters() if 0 < unicodedata.combining(c) < combining]
    if lower:
      ends = _class(c for c in decomposed if classes[c] == combining)
      alternatives.append(f'(?={_class(lower)})(?<={ends})')
  return rf'(?=\p{{M}})(?:{"|".join(alternatives)})'


def _class(characters: Iterable[str]) -> str:
  """A regex character class, ranges joined, for the dialects of Rust, Oniguruma and JavaScript."""
  codes = sorted({ord(c) for c in characters})
  ranges: list[list[int]] = []
  for code in codes:
    if ranges and code == ranges[-1][1] + 1:
      ranges[-1][1] = code
    else:
      ranges.append([code, code])
  return '[' + ''.join(chr(a) if a == b else f'{chr(a)}-{chr(b)}' for a, b in ranges) + ']'
