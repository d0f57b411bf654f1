"""Translation by CTranslate2: NLLB, MADLAD-400, M2M-100, OPUS-MT, and models of our own exports.

A folder holds what CTranslate2's converters write (`model.bin`, the vocabulary) and the model's
tokenizer: a SentencePiece model, or `tokenizer.json`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from aya_train import ct2_library, path_facts
from aya_train.tasks.languages import aya101
from aya_train.translation import engine_languages, quality_gates

_END = '</s>'
_OPUS_MODEL = 'source.spm'
_SOURCE_MODELS = ('sentencepiece.bpe.model', 'spiece.model', 'sentencepiece.model', _OPUS_MODEL)
_TARGET_MODEL = 'target.spm'
_JSON = 'tokenizer.json'
_VOCABULARIES = ('shared_vocabulary', 'source_vocabulary')
DEVICES = ('cpu', 'cuda', 'auto')
PROMPT = 'Translate to {language}: {text}'


class Ct2Engine:
  """See `engines.Engine`.

  Attributes:
    name: of the model's folder, or as given.
    family: of `engine_languages`.
  """

  def __init__(
    self,
    folder: epath.PathLike,
    *,
    name: str = '',
    family: engine_languages.Family | None = None,
    beam_size: int = 4,
    device: str = 'auto',
    device_index: int = 0,
    compute_type: str = 'default',
    threads: int = 0,
    max_output_tokens: int = 512,
    prompt: str = PROMPT,
  ):
    """Loads the folder.

    Args:
      folder: local.
      name: of the model, where the folder's name is not it.
      family: where the vocabulary does not say it: 'prompted' for a model that is told the language
        in words.
      beam_size: 1 is greedy.
      device, device_index, compute_type: as CTranslate2 takes them.
      threads: of a processor; 0 leaves it to CTranslate2.
      max_output_tokens: of an output; one that has so many is unfinished.
      prompt: of a 'prompted' model, with {text} and {language}.

    Raises:
      FileNotFoundError: the folder lacks the model, its vocabulary or its tokenizer.
      ModuleNotFoundError: ctranslate2 is not installed.
      ValueError: a device that CTranslate2 does not know, a prompt without {text}, or a folder
        whose model or tokenizer cannot be loaded.
    """
    folder = epath.Path(folder)
    if device not in DEVICES:
      raise ValueError(f'--device must be one of {DEVICES}, got {device!r}')
    if '{text}' not in prompt:
      raise ValueError(f'the prompt of a model has {{text}} in it, got {prompt!r}')
    if not path_facts.exists(folder / 'model.bin'):
      raise FileNotFoundError(
        f'{folder} holds no model.bin: give a folder that ct2-transformers-converter or '
        '`aya-train convert --to ct2` wrote'
      )
    self._tokens = _vocabulary(folder)
    self._has = frozenset(self._tokens)
    self.family = family or engine_languages.family_of(self._has) or _untagged(folder, self._has)
    self.name = name or folder.name
    self._encode, self._decode = _tokenizer(folder)
    self._beam_size, self._longest, self._prompt = beam_size, max_output_tokens, prompt
    self._compute_type = compute_type
    self._digest = _digest(folder)
    ct2_library.prefer_mkl()
    try:
      import ctranslate2
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        f'{folder} is translated with by CTranslate2, which is not installed: pip install '
        "'aya-train[translate]'"
      ) from error
    self._version = ctranslate2.__version__
    try:
      self._translator = ctranslate2.Translator(
        str(folder),
        device=device,
        device_index=device_index,
        compute_type=compute_type,
        inter_threads=1,
        intra_threads=threads,
      )
    except RuntimeError as error:
      raise ValueError(f'{folder}: CTranslate2 cannot load the model: {error}') from error

  def languages(self, asked: Sequence[str]) -> list[engine_languages.Named]:
    """See `engines.Engine`."""
    return engine_languages.find_all(asked, self.family, self._has)

  def spoken(self, code: str) -> engine_languages.Named:
    """See `engines.Engine`."""
    return engine_languages.spoken(code, self.family, self._has)

  def lengths(self, sentences: Sequence[str]) -> list[int]:
    """See `engines.Engine`."""
    return [len(self._encode(sentence)) + 2 for sentence in sentences]

  def translate(
    self,
    sentences: Sequence[str],
    source: engine_languages.Named,
    target: engine_languages.Named,
  ) -> list[str | None]:
    """See `engines.Engine`."""
    return [text if ended else None for text, ended in self.outputs(sentences, source, target)]

  def outputs(
    self,
    sentences: Sequence[str],
    source: engine_languages.Named,
    target: engine_languages.Named,
  ) -> list[tuple[str, bool]]:
    """Texts, and whether the model came to an end, within the longest that it may say."""
    sources = [self._source(sentence, source, target) for sentence in sentences]
    forced = [target.token] if self.family in ('nllb', 'm2m100') else None
    try:
      found = self._translator.translate_batch(
        sources,
        target_prefix=[forced] * len(sources) if forced else None,
        beam_size=self._beam_size,
        max_decoding_length=self._longest,
        max_input_length=0,
        return_end_token=True,
      )
    except RuntimeError as error:
      raise ValueError(f'{self.name}: CTranslate2 gave up: {error}. {_advice(error)}') from error
    made = []
    for each in found:
      tokens = each.hypotheses[0]
      if forced and tokens[:1] == forced:
        tokens = tokens[1:]
      made.append((self._text(tokens), tokens[-1:] == [_END]))
    return made

  def settings(self) -> Mapping[str, Any]:
    """See `engines.Engine`."""
    return {
      'engine': 'ct2',
      'ctranslate2': self._version,
      'model': self.name,
      'family': self.family,
      'sha256': self._digest,
      'beam_size': self._beam_size,
      'compute_type': self._translator.compute_type,
      'max_decoding_length': self._longest,
      **({'prompt': self._prompt} if self.family == 'prompted' else {}),
    }

  def _source(
    self, sentence: str, source: engine_languages.Named, target: engine_languages.Named
  ) -> list[str]:
    if self.family == 'prompted':
      language = aya101.described(target.code).partition(' (')[0]
      text = self._prompt.replace('{language}', language).replace('{text}', sentence)
      return [*self._encode(text), _END]
    tokens = [*self._encode(sentence), _END]
    first = source.token if self.family in ('nllb', 'm2m100') else target.token
    return [first, *tokens] if first else tokens

  def _text(self, tokens: Sequence[str]) -> str:
    """Text of pieces; an unknown one stays as `<unk>`, which SentencePiece would hide."""
    made: list[str] = []
    run: list[str] = []
    for token in tokens:
      if token == quality_gates.UNKNOWN:
        made += [self._decode(run), quality_gates.UNKNOWN]
        run = []
      elif token not in (_END, '<s>', '<pad>'):
        run.append(token)
    made.append(self._decode(run))
    return ' '.join(part for part in made if part)


def _untagged(folder: epath.Path, vocabulary: frozenset[str]) -> engine_languages.Family:
  """The family of a model whose vocabulary has no languages.

  Raises:
    ValueError: it is no model of OPUS-MT, and so must be told in words.
  """
  if path_facts.exists(folder / _OPUS_MODEL):
    return 'opus'
  if 'madeupword0' in vocabulary:
    raise ValueError(
      f"{folder}: the vocabulary has lost M2M-100's languages, as CTranslate2's converter (4.8) "
      'does with transformers 5: convert the model with transformers below 5'
    )
  raise ValueError(
    f'{folder}: no language in its vocabulary, and no {_OPUS_MODEL} of OPUS-MT: a model that is '
    "told in words needs --prompt 'Translate to {language}: {text}'; of OPUS-MT, "
    'ct2-transformers-converter --copy_files source.spm target.spm'
  )


def _advice(error: RuntimeError) -> str:
  said = str(error).lower()
  if 'position' in said:
    return 'Its sentences are shorter: give smaller --max_output_tokens, and --longest'
  if 'memory' in said:
    return 'Give smaller --batch_tokens, or a smaller --compute_type'
  return 'Give another --device, --compute_type or model'


def _vocabulary(folder: epath.Path) -> list[str]:
  for stem in _VOCABULARIES:
    if path_facts.exists(path := folder / f'{stem}.json'):
      return json.loads(path.read_text())
    if path_facts.exists(path := folder / f'{stem}.txt'):
      return path.read_text().split('\n')
  raise FileNotFoundError(
    f'{folder} holds none of {", ".join(f"{s}.json" for s in _VOCABULARIES)}: it is no whole model '
    'of CTranslate2'
  )


def _tokenizer(
  folder: epath.Path,
) -> tuple[Callable[[str], list[str]], Callable[[Sequence[str]], str]]:
  """Functions from text to pieces and back."""
  found = next((folder / name for name in _SOURCE_MODELS if path_facts.exists(folder / name)), None)
  if found is not None:
    into = _sentencepiece(found)
    target = folder / _TARGET_MODEL
    back = _sentencepiece(target) if path_facts.exists(target) else into
    return (lambda text: into.encode(text, out_type=str)), lambda p: back.decode_pieces([*p])
  if path_facts.exists(folder / _JSON):
    return _fast_tokenizer(folder / _JSON)
  raise FileNotFoundError(
    f"{folder} holds no tokenizer: copy the model's {', '.join(_SOURCE_MODELS)} or {_JSON} into it "
    '(ct2-transformers-converter --copy_files)'
  )


def _sentencepiece(path: epath.Path) -> Any:
  import sentencepiece

  try:
    return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
  except RuntimeError as error:
    raise ValueError(f'{path} is no model of SentencePiece: {error}') from error


def _fast_tokenizer(
  path: epath.Path,
) -> tuple[Callable[[str], list[str]], Callable[[Sequence[str]], str]]:
  try:
    import tokenizers
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"{path} is read by tokenizers, which is not installed: pip install 'aya-train[translate]'"
    ) from error
  try:
    model = tokenizers.Tokenizer.from_str(path.read_text())
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{path} is no tokenizer that tokenizers reads: {error}') from error

  def encode(text: str) -> list[str]:
    return model.encode(text, add_special_tokens=False).tokens

  def decode(pieces: Sequence[str]) -> str:
    ids = [model.token_to_id(piece) for piece in pieces]
    return model.decode([i for i in ids if i is not None], skip_special_tokens=True)

  return encode, decode


def _digest(folder: epath.Path) -> str:
  """SHA-256 of the model's file."""
  found = hashlib.sha256()
  with (folder / 'model.bin').open('rb') as file:
    while block := file.read(1 << 24):
      found.update(block)
  return found.hexdigest()
