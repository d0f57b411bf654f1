"""What translates sentences: the protocol, and engines without a model for dry runs and tests."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aya_train.translation import engine_languages


class Engine(Protocol):
  """Translates sentences from one language into one other.

  Attributes:
    name: of the model, for manifests.
    family: of `engine_languages`.
  """

  name: str
  family: engine_languages.Family

  def languages(self, asked: Sequence[str]) -> list[engine_languages.Named]:
    """The languages as the model has them.

    Raises:
      engine_languages.LacksLanguageError: it lacks one.
    """
    ...

  def spoken(self, code: str) -> engine_languages.Named:
    """The language of what is to be translated, as the model has it.

    Raises:
      engine_languages.LacksLanguageError: the model is told it, and lacks it.
    """
    ...

  def lengths(self, sentences: Sequence[str]) -> list[int]:
    """Tokens of each sentence, by which batches are made."""
    ...

  def translate(
    self,
    sentences: Sequence[str],
    source: engine_languages.Named,
    target: engine_languages.Named,
  ) -> list[str | None]:
    """A translation for each sentence of a batch, in order, the same for the same sentence.

    `<unk>` stands where the model wrote its unknown token; None for an output without an end, cut
    at the longest that it may be.
    """
    ...

  def settings(self) -> Mapping[str, Any]:
    """What decides the output, as JSON: model, its digest, beam, types."""
    ...


@dataclasses.dataclass
class Identity:
  """Gives sentences back: what is left of a text is what cutting and joining left of it.

  Attributes:
    calls: sentences that it was given.
  """

  name: str = 'identity'
  family: engine_languages.Family = 'prompted'
  calls: int = 0

  def languages(self, asked: Sequence[str]) -> list[engine_languages.Named]:
    return engine_languages.find_all(asked, self.family, ())

  def spoken(self, code: str) -> engine_languages.Named:
    return engine_languages.spoken(code, self.family, ())

  def lengths(self, sentences: Sequence[str]) -> list[int]:
    return [len(s) for s in sentences]

  def translate(
    self,
    sentences: Sequence[str],
    source: engine_languages.Named,
    target: engine_languages.Named,
  ) -> list[str | None]:
    del source, target
    self.calls += len(sentences)
    return list(sentences)

  def settings(self) -> Mapping[str, Any]:
    return {'engine': self.name}
