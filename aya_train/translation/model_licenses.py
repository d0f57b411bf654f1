"""Licences of the released translation models, and what they and a source's allow together.

As the models' pages on the hub say (docs/translation.md has the addresses): NLLB-200 CC BY-NC,
MADLAD-400 Apache-2.0, M2M-100 MIT. OPUS-MT's models differ, so theirs is to be named.
"""

from collections.abc import Sequence

from aya_train.tasks.rights import licenses

OF_FAMILY = {'nllb': 'CC BY-NC 4.0', 'madlad': 'Apache License 2.0', 'm2m100': 'MIT License'}
"""Of the released weights of `engine_languages.FAMILIES`."""


def of_model(family: str, kind: str, named: str) -> str:
  """The licence of an engine's model: as named, else of its family's release; '' of none.

  Args:
    family: of `engine_languages.FAMILIES`.
    kind: of the engine; 'identity' has no model.
    named: by the user, '' where not.

  Raises:
    ValueError: nobody named it, and the family has no one licence.
  """
  found = named or ('' if kind == 'identity' else OF_FAMILY.get(family, ''))
  if not found and kind != 'identity':
    raise ValueError(
      f'a model of the family {family!r} has no one licence: name that of its weights with '
      '--model_license'
    )
  return found


def check(names: Sequence[tuple[str, str]], policy: str) -> None:
  """Refuses licences that nobody knows, or that a policy does not admit.

  Args:
    names: (whose, licences between ';').
    policy: use class that all must admit; '' for any.

  Raises:
    licenses.UnknownLicenseError, ValueError: naming whose licence.
  """
  for whose, several in names:
    for name in filter(None, (part.strip() for part in several.split(';'))):
      try:
        use = licenses.classify_stated(name).use
      except licenses.UnknownLicenseError as error:
        raise licenses.UnknownLicenseError(f'{whose}: {error}') from error
      if policy and not licenses.admits(policy, use):
        raise ValueError(
          f'{whose}: {name} is {use}, and --policy {policy} does not admit it: take another model '
          '(MADLAD-400 is under the Apache License 2.0), other data, or the policy that your use '
          'allows'
        )
