"""Inputs made from valid ones by what goes wrong with files, and by what attackers try."""

import random
import re
from collections.abc import Sequence

LONGEST = 100_000  # bytes of an input
_NUMBER = re.compile(rb'-?\d+(?:\.\d+)?')
_NUMBERS = (
  b'0', b'-1', b'1e309', b'-1e309', b'NaN', b'Infinity', b'0.5', b'9' * 30, b'9' * 5000,
  b'9223372036854775807', b'-9223372036854775808', b'18446744073709551616', b'4294967296', b'1e9',
)  # fmt: skip
_TOKENS = (
  b'\x00', b'\n', b'\r', b'\r\n', b'\xef\xbb\xbf', b'\xff\xfe', b'\xe2\x80\xa8', b'\xed\xa0\x80',
  b'\xc0\x80', b'\xff',
  b'"', b"'", b'{', b'}', b'[', b']', b'(', b')', b',', b':', b';', b'=', b'#',
  b'%', b'@', b'\\', b'/', b'../', b'~', b'*', b'null', b'true', b'NaN', b'{}', b'[]', b'""', b'\t',
  b'|||', b'{{', b'}}', b'{%', b'%}', b'-->', b'&a [*a]', b'!!python/name:os.system', b' ', b'\x85',
  '\N{COMBINING ACUTE ACCENT}'.encode(), '\N{RIGHT-TO-LEFT OVERRIDE}'.encode(), 'İ'.encode(),
)  # fmt: skip


def mutated(samples: Sequence[bytes], rng: random.Random) -> bytes:
  """An input: a sample with a few faults, or now and then bytes without any sense."""
  if rng.random() < 0.03:
    return rng.randbytes(rng.randrange(200))
  data = rng.choice(samples)
  for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
    data = rng.choice(_FAULTS)(data, samples, rng)[:LONGEST]
  return data


def _place(data: bytes, rng: random.Random) -> int:
  return rng.randrange(len(data) + 1)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
  start = _place(data, rng)
  return start, min(len(data), start + rng.choice((1, 1, 2, 4, 8, 16, 64, 1000)))


def _flip(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  if not data:
    return data
  at = rng.randrange(len(data))
  return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _byte(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  if not data:
    return data
  at = rng.randrange(len(data))
  return data[:at] + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))]) + data[at + 1 :]


def _cut(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  return data[: _place(data, rng)]


def _delete(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  start, end = _span(data, rng)
  return data[:start] + data[end:]


def _repeat(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  start, end = _span(data, rng)
  return data[:start] + data[start:end] * rng.choice((2, 2, 2, 10, 1000)) + data[end:]


def _insert(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  at = _place(data, rng)
  token = rng.choice(_TOKENS)
  return data[:at] + token * rng.choice((1, 1, 1, 1, 1, 3, 3000)) + data[at:]


def _replace(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  start, end = _span(data, rng)
  return data[:start] + rng.choice(_TOKENS) + data[end:]


def _splice(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  other = rng.choice(samples)
  start, end = _span(other, rng)
  at = _place(data, rng)
  return data[:at] + other[start:end] + data[at if rng.random() < 0.5 else end :]


def _number(data: bytes, samples: Sequence[bytes], rng: random.Random) -> bytes:
  found = list(_NUMBER.finditer(data[:20_000]))
  if not found:
    return data
  where = rng.choice(found)
  return data[: where.start()] + rng.choice(_NUMBERS) + data[where.end() :]


_FAULTS = (_flip, _byte, _cut, _delete, _repeat, _insert, _replace, _splice, _number, _number)
