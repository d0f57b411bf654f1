"""What a conversion carries beside arrays: the vocabulary, and how the model answers.

What the target cannot say is refused here by name, before anything is written.
"""

import dataclasses
import logging

from etils import epath

from aya_train import path_facts
from aya_train.checkpoint import contents, formats, model_settings, vocabularies
from aya_train.checkpoint.hf import hf_tokenizer, hf_vocabulary
from aya_train.checkpoint.t5x import t5x_settings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """What becomes of a checkpoint's vocabulary.

  Attributes:
    file: the SentencePiece file, '' where there is none.
    model: a SentencePiece model that says more than `file`, since a tokenizer of transformers adds
      tokens to it; b'' where there is no such.
    tokenizer: folder of a tokenizer of transformers that is copied as it is, or ''.
  """

  file: str
  model: bytes = b''
  tokenizer: str = ''

  def written_to(self, path: epath.Path) -> str:
    """A file with the whole SentencePiece model, made at `path` if need be; '' without one."""
    if self.model:
      path.write_bytes(self.model)
      return str(path)
    return self.file if is_file(self.file) else ''


def vocabulary(
  checkpoint: contents.Checkpoint, to: str, vocabulary_file: str | None, source: epath.Path
) -> Vocabulary:
  """Finds the vocabulary of what is written.

  Args:
    checkpoint: the source, opened.
    to: 'hf', 'native' or 't5x'.
    vocabulary_file: the one asked for, if any.
    source: its path, for messages.

  Raises:
    FileNotFoundError: it is not there, or an export has none.
    ValueError: it belongs to another model; or a tokenizer that `to` cannot carry.
  """
  folder, named = checkpoint.tokenizer_folder, vocabulary_file or checkpoint.vocabulary_file
  rows = checkpoint.config.vocab_size
  if vocabulary_file:
    _check_exists(vocabulary_file, source)
    if folder:
      _check_same(folder, vocabulary_file)
  if to == 'hf' and folder and not vocabulary_file:
    _check_rows(folder, rows)
    model = b''
    if hf_vocabulary.tokenizer_class(folder) in hf_vocabulary.CLASSES:
      try:
        model = hf_vocabulary.own_model(folder, rows)
      except (ValueError, FileNotFoundError) as error:
        logger.info('the tokenizer is copied as it is, without prompts to compare: %s', error)
    # transformers opens no umT5 by its SentencePiece file alone: there, a tokenizer is made of it.
    alone = not path_facts.exists(epath.Path(folder) / 'tokenizer.json')
    made = alone and bool(model or is_file(named)) and checkpoint.config.relpos_bias_per_layer
    return Vocabulary(file=named, model=model, tokenizer='' if made else folder)
  if to == 'hf':
    _check_exists(named, source)
  if not folder:
    return Vocabulary(file=named)
  model = hf_vocabulary.own_model(folder, rows, vocabulary_file or '')
  if model and (stripping := hf_vocabulary.stripping(hf_vocabulary.added_tokens(folder))):
    logger.warning(
      '%s: beside %d tokens (%s ...) the tokenizer drops spaces, which a SentencePiece model keeps',
      folder,
      len(stripping),
      stripping[0],
    )
  return Vocabulary(file=named, model=model)


def is_file(path: str) -> bool:
  """Whether a path is given, and a file."""
  return bool(path) and epath.Path(path).is_file()


def _check_exists(vocabulary_file: str, source: epath.Path) -> None:
  if vocabulary_file and path_facts.is_file(vocabulary_file):
    return
  named = f'the vocabulary {vocabulary_file!r} for' if vocabulary_file else 'no vocabulary in'
  raise FileNotFoundError(
    f'{named} {source}' + (' does not exist' if vocabulary_file else '') + ': give its '
    'SentencePiece file with --vocabulary'
  )


def _check_same(folder: str, vocabulary_file: str) -> None:
  """Refuses a file whose pieces are not those of the tokenizer in a folder."""
  hf_vocabulary.check_class(folder)
  hf_tokenizer.read_vocabulary(vocabulary_file)
  own = vocabularies.of_hf(epath.Path(folder)).file
  how = vocabularies.difference(vocabularies.pieces(own), vocabularies.pieces(vocabulary_file))
  if how:
    raise ValueError(
      f'--vocabulary {vocabulary_file} is not the vocabulary of the tokenizer in {folder}: {how}. '
      'Leave it out, and the tokenizer is carried'
    )


def _check_rows(folder: str, rows: int) -> None:
  for token in hf_vocabulary.added_tokens(folder):
    if token['id'] >= rows:
      raise ValueError(
        f'{folder}: the tokenizer gives {token["content"]!r} the id {token["id"]}, and the table '
        f'of embeddings has {rows} rows: resize the embeddings in transformers, or remove the token'
      )


def settings(
  checkpoint: contents.Checkpoint, source: formats.Format, to: str, max_new_tokens: int | None
) -> model_settings.ModelSettings:
  """How the model that is written answers.

  A run tells the length of its targets, and a Hugging Face folder speaks for itself. An export of
  any other checkpoint gets `model_settings.MAX_NEW_TOKENS`, and a line says so.

  Raises:
    ValueError: T5X cannot say it.
  """
  found = checkpoint.settings
  of_t5x = source in (formats.Format.T5X, formats.Format.T5X_ORBAX)
  if of_t5x and not t5x_settings.tells_function(checkpoint.where):
    logger.info(
      '%s does not say what its MLP computes, nor where its relative positions end: taken for %s '
      'and %d, as in every released T5 and mT5',
      checkpoint.where,
      checkpoint.config.mlp_activations,
      checkpoint.config.relative_attention_max_distance,
    )
  if max_new_tokens is not None:
    found = found.with_length(max_new_tokens)
  elif to == 'hf' and source is not formats.Format.HF and found.max_new_tokens is None:
    found = found.with_length(model_settings.MAX_NEW_TOKENS)
    logger.info(
      '%s does not say how long its answers are: generation_config.json gets max_new_tokens %d '
      '(--max_new_tokens)',
      checkpoint.where,
      model_settings.MAX_NEW_TOKENS,
    )
  if to == 't5x':
    t5x_settings.check(checkpoint)
  return found


def check_carried(
  result: contents.Checkpoint, checkpoint: contents.Checkpoint, kept: Vocabulary, where: str
) -> None:
  """Compares what a written folder says, read again, with what was to be carried.

  Raises:
    ValueError: an entry, a field of the network or the vocabulary differs.
  """
  wanted, found = checkpoint.settings.to_json(), result.settings.to_json()
  wrong = [f'{k} {found[k]!r}, expected {wanted[k]!r}' for k in wanted if found[k] != wanted[k]]
  layout = ('scan_layers', 'param_scan_axis')
  ours, theirs = checkpoint.config.architecture(), result.config.architecture()
  for name in ours:
    if name not in layout and ours[name] != theirs[name]:
      # A copy of one table in each layer is read as shared.
      if name == 'relpos_bias_per_layer' and contents.relpos_are_equal(checkpoint):
        continue
      wrong.append(f'{name} {theirs[name]!r}, expected {ours[name]!r}')
  if kept.model and not kept.tokenizer:
    written = epath.Path(result.vocabulary_file)
    if not is_file(result.vocabulary_file) or written.read_bytes() != kept.model:
      wrong.append(f'another vocabulary, {result.vocabulary_file!r}')
  if wrong:
    raise ValueError(f'{where}: what was written does not read back: {"; ".join(wrong)}')
