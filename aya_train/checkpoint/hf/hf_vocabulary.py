"""The vocabulary of a Hugging Face folder as one SentencePiece model, added tokens included.

A folder may hold the SentencePiece file, a tokenizer.json, or both; and transformers adds tokens to
either: sentinels (`extra_ids`) and whatever a user called `add_tokens` with. As user-defined pieces
at their own ids, which SentencePiece never splits, they belong to the model like mT5's sentinels.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import path_facts
from aya_train.checkpoint.hf import hf_files, hf_tokenizer

FILES = (
  *(hf_tokenizer.MODEL_FILE, 'tokenizer.model', 'tokenizer.json', 'tokenizer_config.json'),
  *('special_tokens_map.json', 'added_tokens.json', 'chat_template.jinja', 'vocab.json'),
)
# Tokenizers whose ids are those of a unigram model; None: by the model's type.
CLASSES = (
  *(None, 'T5Tokenizer', 'T5TokenizerFast', 'MT5Tokenizer', 'MT5TokenizerFast', 'UMT5Tokenizer'),
  *('PreTrainedTokenizerFast', 'TokenizersBackend', 'PreTrainedTokenizer'),
)
_GENERIC = ('PreTrainedTokenizerFast', 'TokenizersBackend')
_DEFAULT_EXTRA_IDS = 100
_OPTIONS = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6


def file_of(folder: epath.PathLike) -> epath.Path | None:
  """The SentencePiece file of a folder, None where there is none."""
  for name in FILES[:2]:
    if path_facts.exists(epath.Path(folder) / name):
      return epath.Path(folder) / name
  return None


def has_tokenizer(folder: epath.PathLike) -> bool:
  """Whether a folder holds a tokenizer that transformers opens."""
  folder = epath.Path(folder)
  if path_facts.exists(folder / 'tokenizer.json') or file_of(folder) is not None:
    return True
  return tokenizer_class(folder) not in CLASSES  # ByT5's has no further file


def copy(folder: epath.PathLike, target: epath.PathLike) -> None:
  """Copies the files of a tokenizer as they are."""
  for name in FILES:
    if path_facts.exists(epath.Path(folder) / name):
      (epath.Path(target) / name).write_bytes((epath.Path(folder) / name).read_bytes())


def keep(folder: epath.PathLike, target: epath.PathLike) -> None:
  """Copies them into a new folder, which AutoTokenizer opens: config.json names the class."""
  target = epath.Path(target)
  target.mkdir()
  copy(folder, target)
  (target / 'config.json').write_bytes((epath.Path(folder) / 'config.json').read_bytes())


def tokenizer_class(folder: epath.PathLike) -> str | None:
  """The class that tokenizer_config.json names, None where it names none."""
  return _json(folder, 'tokenizer_config.json').get('tokenizer_class')


def check_class(folder: epath.PathLike) -> None:
  """Refuses a tokenizer that is no unigram model, such as ByT5's.

  Raises:
    ValueError: that, with its name.
  """
  if (name := tokenizer_class(folder)) not in CLASSES:
    raise ValueError(
      f'{folder} has the tokenizer {name}, whose ids are not those of a SentencePiece model: only '
      'another Hugging Face folder (--to hf) carries it'
    )


def _json(folder: epath.PathLike, name: str) -> dict[str, Any]:
  path = epath.Path(folder) / name
  return hf_files.read_json(path) if path_facts.exists(path) else {}


# Added tokens -------------------------------------------------------------------------------------


def added_tokens(folder: epath.PathLike) -> tuple[dict[str, Any], ...]:
  """Tokens that the tokenizer of a folder adds to a unigram model, by id.

  Returns:
    `id`, `content` and the options of `tokenizers.AddedToken` of each. Sentinels that no file
    lists, and that T5's class adds by itself, are among them.

  Raises:
    ValueError: a damaged file.
  """
  folder = epath.Path(folder)
  if tokenizer_class(folder) not in CLASSES:
    return ()
  try:
    return _added_tokens(folder)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(
      f'{folder}: the added tokens of its tokenizer cannot be read ({error!r}). Copy the tokenizer '
      'again from its source'
    ) from error


def _added_tokens(folder: epath.Path) -> tuple[dict[str, Any], ...]:
  found: dict[int, dict[str, Any]] = {}

  def add(number: Any, content: str, **options: Any) -> None:
    kept = {name: bool(options.get(name, False)) for name in _OPTIONS}
    found[int(number)] = {'id': int(number), 'content': content, **kept}

  if path_facts.exists(folder / 'tokenizer.json'):
    for token in _json(folder, 'tokenizer.json').get('added_tokens') or ():
      add(token['id'], **{k: v for k, v in token.items() if k != 'id'})
    return tuple(found[i] for i in sorted(found))
  settings = _json(folder, 'tokenizer_config.json')
  for number, token in (settings.get('added_tokens_decoder') or {}).items():
    add(number, **token)
  for content, number in _json(folder, 'added_tokens.json').items():
    if int(number) not in found:
      add(number, content)
  file = file_of(folder)
  if file is not None and settings.get('tokenizer_class') not in _GENERIC:
    count = settings.get('extra_ids', _DEFAULT_EXTRA_IDS)
    pieces = [piece.piece for piece in hf_tokenizer.read_vocabulary(file).pieces]
    rows = hf_files.read_config(folder)['vocab_size']
    known = {*pieces, *(token['content'] for token in found.values())}
    for i in range(count):
      content, number = f'<extra_id_{i}>', len(pieces) + count - 1 - i
      if content not in known and number < rows and number not in found:
        add(number, content, special=True)
  return tuple(found[i] for i in sorted(found))


def stripping(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
  """Tokens that take spaces beside them away in transformers, or match whole words only."""
  return [t['content'] for t in tokens if t['lstrip'] or t['rstrip'] or t['single_word']]


# One SentencePiece model --------------------------------------------------------------------------


def merged(model: Any, tokens: Sequence[Mapping[str, Any]], rows: int, where: str) -> bytes:
  """A SentencePiece model with added tokens as user-defined pieces.

  Args:
    model: of `hf_tokenizer.read_vocabulary`; changed.
    tokens: of `added_tokens`.
    rows: of the table of embeddings.
    where: for messages.

  Returns:
    The content of the file; b'' where the model has them all.

  Raises:
    ValueError: a token has no row, or another piece has its id.
  """
  pieces, changed = model.pieces, False
  for token in sorted(tokens, key=lambda token: token['id']):
    number, content = token['id'], token['content']
    if number >= rows:
      raise ValueError(
        f'{where}: the tokenizer gives {content!r} the id {number}, and the table of embeddings '
        f'has {rows} rows: resize the embeddings in transformers, or remove the token'
      )
    if number < len(pieces):
      piece = pieces[number]
      if piece.piece != content:
        raise ValueError(
          f'{where}: id {number} is {content!r} for the tokenizer, and {piece.piece!r} in its '
          'SentencePiece file: the two do not belong together'
        )
      if piece.type == _NORMAL:
        piece.type, changed = _USER_DEFINED, True
      continue
    for i in range(len(pieces), number):
      pieces.add(piece=f'<unused_{i}>', score=0.0, type=_UNUSED)
    pieces.add(piece=content, score=0.0, type=_USER_DEFINED)
    changed = True
  return model.SerializeToString() if changed else b''


def own_model(folder: epath.PathLike, rows: int, vocabulary_file: str = '') -> bytes:
  """The SentencePiece model that says all that a folder's tokenizer does, if no file is that.

  Args:
    folder: the Hugging Face folder.
    rows: of the table of embeddings.
    vocabulary_file: takes the place of the folder's own.

  Returns:
    Its content; b'' where the file is complete, or the folder has no tokenizer.

  Raises:
    ValueError: the tokenizer cannot be said in one, with the reason.
    FileNotFoundError: there is no SentencePiece file, and tokenizer.json cannot be one.
  """
  check_class(folder)
  tokens = added_tokens(folder)
  file = vocabulary_file or file_of(folder)
  if file:
    return merged(hf_tokenizer.read_vocabulary(file), tokens, rows, str(folder))
  if not path_facts.exists(epath.Path(folder) / 'tokenizer.json'):
    return b''
  model = _rebuilt(_json(folder, 'tokenizer.json'), tokens, str(folder))
  return merged(model, tokens, rows, str(folder)) or model.SerializeToString()


def _rebuilt(content: Mapping[str, Any], tokens: Sequence[Mapping[str, Any]], where: str) -> Any:
  """The SentencePiece model that a tokenizer.json of T5's class, or of ours, was made of."""
  from sentencepiece import sentencepiece_model_pb2

  if (ours := hf_tokenizer.rebuilt(content)) is not None:
    return ours
  way_out = 'give the SentencePiece file that the model was trained with (--vocabulary)'
  inner = content.get('model') or {}
  if inner.get('type') != 'Unigram':
    raise FileNotFoundError(
      f'{where} holds no SentencePiece file, and its tokenizer.json is no unigram model: {way_out}'
    )
  vocab = inner['vocab']
  if [piece for piece, _ in vocab[:2]] != ['<pad>', '</s>'] or inner.get('unk_id') is None:
    raise FileNotFoundError(
      f'{where} holds no SentencePiece file, and its tokenizer.json begins with '
      f'{[piece for piece, _ in vocab[:3]]}, that of a T5 with <pad>, </s> and <unk>: {way_out}'
    )
  steps = _steps(content.get('normalizer'), 'normalizers')
  kinds = [step['type'] for step in steps]
  splits = _steps(content.get('pre_tokenizer'), 'pretokenizers')
  as_t5 = [step['type'] for step in splits] in (['WhitespaceSplit', 'Metaspace'], ['Metaspace'])
  if not as_t5 or [kind for kind in kinds if kind not in ('Precompiled', 'Strip', 'Replace')]:
    raise FileNotFoundError(
      f'{where} holds no SentencePiece file, and none can be made of a tokenizer.json that '
      f'normalises with {[*dict.fromkeys(kinds)]} and splits with {[x["type"] for x in splits]}: '
      f'{way_out}'
    )
  model = sentencepiece_model_pb2.ModelProto()
  spec = model.trainer_spec
  spec.model_type, spec.vocab_size = 1, len(vocab)
  spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, inner['unk_id'], -1
  spec.byte_fallback = bool(inner.get('byte_fallback'))
  normal = model.normalizer_spec
  normal.name, normal.add_dummy_prefix, normal.escape_whitespaces = 'nmt_nfkc', True, True
  normal.remove_extra_whitespaces = True
  charsmap = [step['precompiled_charsmap'] for step in steps if step['type'] == 'Precompiled']
  if charsmap and charsmap[0]:
    normal.precompiled_charsmap = base64.b64decode(charsmap[0])
  defined = {token['content'] for token in tokens}
  kind_of = {0: _CONTROL, 1: _CONTROL, inner['unk_id']: _UNKNOWN}
  for i, (piece, score) in enumerate(vocab):
    kind = kind_of.get(i, _USER_DEFINED if piece in defined else _NORMAL)
    if kind == _NORMAL and spec.byte_fallback and _is_byte(piece):
      kind = _BYTE
    model.pieces.add(piece=piece, score=score, type=kind)
  if text := _other_ids(model, content):
    raise FileNotFoundError(
      f'{where} holds no SentencePiece file, and one made of its tokenizer.json gives {text!r} '
      f'other ids: {way_out}'
    )
  return model


_TEXTS = (
  'Mo fẹ́ mọ̀  ìdí.',
  'The man, 12 cups: (tea)',
  'मैं समय',
  'أين؟',
  '日本語です。',
  'Đáng lẽ Привет',
)


def _other_ids(model: Any, content: Mapping[str, Any]) -> str | None:
  """A text of which a SentencePiece model makes other ids than a tokenizer.json."""
  import sentencepiece
  import tokenizers

  processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
  tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
  eos = model.trainer_spec.eos_id
  wrong = (x for x in _TEXTS if [*processor.encode(x), eos] != tokenizer.encode(x).ids)
  return next(wrong, None)


def _steps(content: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
  if content is None:
    return []
  return list(content[inner]) if content['type'] == 'Sequence' else [content]


def _is_byte(piece: str) -> bool:
  return len(piece) == 6 and piece.startswith('<0x') and piece.endswith('>')
