"""Scorers of texts that a user names: each makes a number from 0 (harmless) to 1 of a text.

- `moderation`: OpenAI's moderation endpoint, or one of its form; the highest of its categories;
- `http(s)://...`: a server that gets `{"texts": [...]}` and sends `{"scores": [...]}`;
- `MODULE:FUNCTION`: Python, from texts to scores;
- `hf:FOLDER` or `hf:FOLDER:LABEL`: a Hugging Face classifier on this machine, and which of its
  labels is the bad one.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aya_train import path_facts, user_functions
from aya_train.judging import endpoint_address

Scorer = Callable[[Sequence[str]], Sequence[float]]
MODERATION = 'moderation'
_BAD = ('toxic', 'toxicity', 'hate', 'hateful', 'offensive', 'label_1')


class ScorerError(ValueError):
  """A scorer that cannot be had, or that gives something other than scores."""


def load(name: str, *, timeout: float = 120.0, key_env: str = '') -> Scorer:
  """A scorer of texts by its name, see the module; not `moderation`, which is asked row by row.

  Args:
    name: of it.
    timeout: seconds for a server's reply.
    key_env: environment variable of a server's key, '' for none.

  Raises:
    ScorerError: there is no such scorer.
  """
  if name.startswith(('http://', 'https://')):
    return _http(name, timeout, os.environ.get(key_env, '').strip())
  if name.startswith('hf:'):
    return _classifier(name.removeprefix('hf:'))
  if ':' in name:
    return _function(name)
  raise ScorerError(
    f'no scorer {name!r}: give moderation, http(s)://..., MODULE:FUNCTION or hf:FOLDER[:LABEL]'
  )


def checked(scores: Any, count: int, name: str) -> list[float]:
  """Scores as numbers from 0 to 1, one a text; ScorerError says what they are instead."""
  try:
    numbers = user_functions.numbers(scores, count, 'score')
  except ValueError as error:
    raise ScorerError(f'scorer {name}: {error}') from None
  if bad := [x for x in numbers if not 0 <= x <= 1]:
    raise ScorerError(f'scorer {name}: a score must be from 0 to 1, got {bad[0]:g}')
  return numbers


def moderation_score(result: Mapping[str, Any]) -> float | None:
  """The highest category of a moderation result; None if it has none."""
  scores = result.get('category_scores')
  numbers = (
    [float(v) for v in scores.values() if isinstance(v, int | float)]
    if (isinstance(scores, dict))
    else []
  )
  return max(numbers) if numbers else None


def _function(name: str) -> Scorer:
  try:
    found = user_functions.load(name)
  except ValueError as error:
    raise ScorerError(f'scorer {name}: {error}') from error
  return lambda texts: checked(found(list(texts)), len(texts), name)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  def redirect_request(self, *args: Any, **options: Any) -> None:
    return None


def _http(url: str, timeout: float, key: str) -> Scorer:
  """Posts texts; the key, where there is one, goes along as a bearer's token."""
  endpoint_address.check_address(url)
  place = endpoint_address.shown(url)
  opener = urllib.request.build_opener(_NoRedirect)
  headers = {'Content-Type': 'application/json', 'User-Agent': 'aya-train'}
  if key:
    headers['Authorization'] = f'Bearer {key}'

  def score(texts: Sequence[str]) -> list[float]:
    body = json.dumps({'texts': list(texts)}).encode()
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
      with opener.open(request, timeout=timeout) as reply:
        value = json.loads(reply.read())
    except urllib.error.HTTPError as error:
      if error.code == 429 or error.code >= 500:
        raise ConnectionError(f'scorer {place} cannot be asked: status {error.code}') from None
      raise ScorerError(f'scorer {place}: status {error.code}') from None
    except (OSError, ValueError) as error:
      said = str(error).replace(key, '[key]') if key else str(error)
      raise ConnectionError(f'scorer {place} cannot be asked: {said}') from None
    return checked(value.get('scores') if isinstance(value, dict) else None, len(texts), place)

  return score


def _classifier(name: str) -> Scorer:
  folder, _, label = name.partition(':')
  folder = os.path.expanduser(folder)
  if os.path.isabs(folder) and not path_facts.is_dir(folder):
    raise ScorerError(f'scorer hf:{name}: there is no folder {folder}')
  import torch
  import transformers

  classes: Any = transformers.AutoModelForSequenceClassification
  try:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model = classes.from_pretrained(folder).eval()
  except (OSError, ValueError) as error:
    said = ' '.join(str(error).split())[:300]
    raise ScorerError(
      f'scorer hf:{name}: {folder} holds no classifier for transformers ({said})'
    ) from error
  names = {str(text).casefold(): int(i) for i, text in model.config.id2label.items()}
  wanted = [label.casefold()] if label else [bad for bad in _BAD if bad in names]
  if len(wanted) == 0 or wanted[0] not in names:
    raise ScorerError(f'scorer hf:{name}: which label is the bad one? It has {sorted(names)}')
  index = names[wanted[0]]
  several = model.config.problem_type == 'multi_label_classification' or len(names) == 1
  longest = min(tokenizer.model_max_length, 512)

  def score(texts: Sequence[str]) -> list[float]:
    read = tokenizer(
      list(texts), return_tensors='pt', padding=True, truncation=True, max_length=longest
    )
    with torch.no_grad():
      logits = model(**read).logits
    shares = logits.sigmoid() if several else logits.softmax(-1)
    return checked(shares[:, index].tolist(), len(texts), f'hf:{name}')

  return score
