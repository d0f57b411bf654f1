"""What a checkpoint says beside its arrays and its architecture: how its model answers.

Every format carries it: native ones in `metadata`, T5X folders in a file beside the index, exports
in config.json, generation_config.json and the tokenizer. What a format cannot say is refused by
name, never dropped.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

PAD_ID, EOS_ID, START_ID = 0, 1, 0
# What generation_config.json says where a checkpoint does not tell how long its answers are: the
# targets of Aya-101.
MAX_NEW_TOKENS = 1024
LENGTHS = ('max_new_tokens', 'max_length')


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """How a model answers, and what its folder says that no array holds.

  Attributes:
    decoder_start_id: the token that the decoder is fed first.
    eos_ids: each of them ends an answer.
    config: further entries of config.json, which no network computes with.
    generation: further entries of generation_config.json, such as `max_new_tokens`.
  """

  decoder_start_id: int = START_ID
  eos_ids: tuple[int, ...] = (EOS_ID,)
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def max_new_tokens(self) -> int | None:
    """Most tokens of an answer, its end included; None where nothing is said."""
    if (length := self.generation.get('max_new_tokens')) is not None:
      return int(length)
    # `max_length` of an encoder-decoder counts the start token.
    length = self.generation.get('max_length')
    return None if length is None else int(length) - 1

  def with_length(self, max_new_tokens: int) -> 'ModelSettings':
    """The same with another length of answers."""
    others = {key: value for key, value in self.generation.items() if key not in LENGTHS}
    return dataclasses.replace(self, generation={**others, 'max_new_tokens': max_new_tokens})

  def to_json(self) -> dict[str, Any]:
    """What `from_json` reads."""
    return {
      'decoder_start_id': self.decoder_start_id,
      'eos_ids': list(self.eos_ids),
      'config': dict(self.config),
      'generation': dict(self.generation),
    }


def from_json(content: Any) -> ModelSettings:
  """The inverse of `ModelSettings.to_json`; None gives the defaults.

  Raises:
    TypeError: it is something else.
  """
  if content is None:
    return ModelSettings()
  found = ModelSettings(
    decoder_start_id=content['decoder_start_id'],
    eos_ids=tuple(content['eos_ids']),
    config=dict(content['config']),
    generation=dict(content['generation']),
  )
  if not all(type(i) is int for i in (found.decoder_start_id, *found.eos_ids)):
    raise TypeError(f'ids {found.decoder_start_id!r} and {found.eos_ids!r}')
  return found


def check_plain(settings: ModelSettings, where: str, who: str) -> None:
  """Refuses a model that starts or ends its answers in another way than T5X's.

  Args:
    settings: of the model.
    where: the checkpoint, for the message.
    who: what can say no other start and end, such as "T5X's network".

  Raises:
    ValueError: which entries differ, and the way out.
  """
  differing = []
  if settings.decoder_start_id != START_ID:
    differing.append(f'decoder_start_token_id {settings.decoder_start_id} (not {START_ID})')
  if settings.eos_ids != (EOS_ID,):
    ids = settings.eos_ids
    differing.append(f'eos_token_id {list(ids) if len(ids) > 1 else ids[0]} (not {EOS_ID})')
  if differing:
    raise ValueError(
      f'{where} has {" and ".join(differing)}, which {who} cannot say: answers would be others. '
      'Change the entry in a copy of config.json and generation_config.json if the model answers '
      'as well without it'
    )
