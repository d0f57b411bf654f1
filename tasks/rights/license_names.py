"""Names of licences as people write them, brought to one form so that a table finds them.

Nothing is guessed from a part of a name: what is left of a name when it is in its form must be in
the table as a whole.
"""

import re


def key(name: str) -> str:
  """Letters and digits of a name, and the dots of its version."""
  return re.sub(r'[^a-z0-9.]', '', name.lower())


# What licences are called in full, by the words for which they are known; longer names first.
_FULL = (
  (r'licen[cs]e ouverte', 'etalab'),
  (r'etalab open', 'etalab'),
  (r'free documentation', 'gfdl'),
  (r'(?:lesser|library) (?:general public licen[cs]e|gpl)', 'lgpl'),
  (r'affero (?:general public licen[cs]e|gpl)', 'agpl'),
  (r'general public licen[cs]e', 'gpl'),
  (r'apache software|asl(?= \d)', 'apache'),
  (r'(?<=apache )(licen[cs]e )?(version 2 )?january 2004', '2'),
  (r'mozilla public', 'mpl'),
  (r'eclipse public', 'epl'),
  (r'european union public', 'eupl'),
  (r'boost software', 'bsl'),
  (r'(?:sil )?open font', 'ofl'),
  (r'microsoft public', 'ms pl'),
  (r'latex project public', 'lppl'),
  (r'open software', 'osl'),
  (r'educational community', 'ecl'),
  (r'academic free', 'afl'),
  (r'(?:uk )?open government|ogl uk|uk ogl', 'ogl'),
  (r'university of illinois ncsa open source', 'ncsa'),
  (r'community data licen[cs]e agreement', 'cdla'),
  (r'(?:open data commons|odc) (?:open database|odbl)|open database', 'odbl'),
  (r'(?:open data commons|odc) (?:public domain dedication and|pddl)', 'pddl'),
  (r'(?:open data commons|odc) attribution', 'odc by'),
  (r'cc ?0 public domain', 'cc0'),
  (r'bsd 3 clause new or revised|(?:new|modified|revised|3 clause) bsd|bsd 3 clause', 'bsd 3'),
  (r'bsd 2 clause simplified|(?:simplified|2 clause) bsd|bsd 2 clause', 'bsd 2'),
  (r'bigscience rail', 'bigscience bloom rail'),
  (r'(?:meta )?(llama ?\d(?:\.\d)?) community', r'\1'),
  (r'gemma terms of use', 'gemma'),
  (r'mit expat|expat', 'mit'),
)
_FULL_PATTERNS = tuple((re.compile(rf'\b(?:{pattern})\b'), short) for pattern, short in _FULL)
# Words that names of licences, and their addresses, have or lack as their writer likes.
_NOISE = re.compile(
  r'\b(?:https?|www|org|html?|php|txt|opensource|spdx|gnu|the|under|licen[cs](?:ed|e|es)|version|'
  r'agreement|only|or later)\b'
)
_V = re.compile(r'v(?=\d)|\bv(?= \d)')


def loose(name: str) -> str:
  """'Apache License, Version 2.0' and 'apache-2.0' -> 'apache2'."""
  text = re.sub(r'[^a-z0-9.]+|\.(?!\d)', ' ', name.lower())
  text = re.sub(r'(?<=\d)\.0(?![\d.])', '', text)
  for pattern, short in _FULL_PATTERNS:
    text = pattern.sub(short, text)
  return key(_NOISE.sub(' ', _V.sub(' ', text)))


_COMMONS = (
  (r'creative[\W_]*commons?(?:\.org)?', ' cc '),
  (r'attribution', ' by '),
  (r'non[\W_]*commercial', ' nc '),
  (r'share[\W_]*alike', ' sa '),
  (r'no[\W_]*deriv(?:ative|ate)?s?(?:[\W_]*works?)?', ' nd '),
  (r'(?:public[\W_]*domain[\W_]*)?(?:dedication|publicdomain/zero|cc[\W_]*zero)', ' cc0 '),
)
_COMMONS_VERSIONS = frozenset(('1', '2', '2.1', '2.5', '3', '4'))
_COMMONS_NOISE = frozenset(
  """
  cc licence license licenses international unported generic public intergovernmental
  organizations deed legalcode igo https http www v version the universal domain
  """.split()  # noqa: SIM905
)


def commons(name: str) -> str | None:
  """'cc-by-nc-sa-3.0-igo' -> 'CC BY-NC-SA 3.0'; None for what is not one licence of that family."""
  text = name.lower()
  for pattern, short in _COMMONS:
    text = re.sub(pattern, short, text)
  words = re.findall(r'cc0|[a-z]+|\d+(?:\.\d+)*', text)
  parts = [word for word in ('by', 'nc', 'nd', 'sa') if word in words]
  versions = [word for word in words if word[0].isdigit()]
  rest = [w for w in words if w not in _COMMONS_NOISE and w not in parts and w not in versions]
  if 'cc0' in rest and not parts:
    return 'CC0 1.0' if set(rest) == {'cc0'} else None
  # A port to a country's law ('3.0 ES') ends the name.
  if rest and len(rest) == 1 and rest[0] == words[-1] and len(rest[0]) == 2 and versions:
    rest = []
  if not {version.removesuffix('.0') for version in versions} <= _COMMONS_VERSIONS:
    return None
  if rest or 'by' not in parts or len(set(versions)) > 1 or not (versions or 'cc' in words):
    return None
  return f'CC {"-".join(parts).upper()} {"".join(versions[:1])}'.strip()
