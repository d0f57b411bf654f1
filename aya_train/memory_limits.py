"""Memory that ran out: of which kind, by how much and where, from the words of whoever says so.

A chip has several memories, and a compiler refuses a program for any of them. What helps against
too little HBM does nothing for the memories on the chip, which hold what a kernel works on.
"""

import dataclasses
import re

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_SIZE = r'([\d.]+) ?([KMGT]?)i?B?'
HBM, HOST, DEVICE = 'hbm', 'host', 'device'
# Memories that hold a program's arrays; every other is on the chip (vmem, smem, cmem, sflag, imem).
_OF_ARRAYS = (HBM, HOST, DEVICE)
_SPACE = (
  re.compile(r'memory space (\w+)'),
  re.compile(rf'Used {_SIZE} of {_SIZE} (?P<space>[a-z]\w*)'),
  re.compile(r'exceeded (?:scoped )?(\w+) (?:limit|capacity)'),
  re.compile(r'available (HBM)\b'),
)
_USED = (
  (rf'Used {_SIZE} of', rf'Used [\d.]+ ?[KMGT]?i?B? of {_SIZE}'),
  (rf'allocation with size {_SIZE}', rf'and limit {_SIZE}'),
  # Arguments and constants are in it, whatever the words say.
  (rf'memory required for HLO temporaries \({_SIZE}\)', rf'available HBM \({_SIZE}\)'),
  (rf'[Oo]ut of memory (?:while trying to allocate|allocating) {_SIZE}', None),
)
# The first is the largest.
_WHERE = (
  re.compile(r'allocating on stack for [`"%]*([\w.\-]+)'),
  re.compile(r'XLA label: (?:[^=\n]* :: )?([\w.\-]+)'),
  re.compile(r'op_name="[^"]*?([^"/]+)(?:/pallas_call)?"'),
)
_WORDS = re.compile(
  r'out of memory|ran out of (?:\w+ )?memory|\boom when allocating|cannot allocate memory|'
  r"can't allocate memory|failed to allocate|exceeds available hbm|exceeded (?:scoped )?\w+ limit|"
  r'std::bad_alloc|unable to allocate',
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Overflow:
  """What did not fit.

  Attributes:
    space: which memory, in the compiler's words: 'hbm', 'vmem', 'smem' ...; 'host' is that of the
      machine, 'device' that of an accelerator that does not say which of its own.
    used: bytes that were wanted, as far as somebody says; None otherwise.
    limit: bytes that there are.
    where: kernel or operation that wanted them, '' where it is the whole program.
  """

  space: str
  used: int | None = None
  limit: int | None = None
  where: str = ''

  @property
  def on_chip(self) -> bool:
    """Whether it is one of the small memories beside the chip's arithmetic."""
    return self.space not in _OF_ARRAYS

  def __str__(self) -> str:
    wanted = '' if self.used is None else f' {_size(self.used)}'
    there = '' if self.limit is None else f' of the {_size(self.limit)} that there are'
    return f'{self.where or "the program"} wants{wanted or " more"}{there} in {self.space}'


def _size(count: int) -> str:
  for unit, name in ((2**30, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB')):
    if count >= unit:
      return f'{count / unit:.2f} {name}'
  return f'{count} bytes'


def overflow(message: str, default: str = HBM) -> Overflow:
  """What a message that speaks of exhausted memory says of it.

  Args:
    message: of XLA, Mosaic, an allocator.
    default: the memory that is meant where none is named.
  """
  space = default
  for pattern in _SPACE:
    if found := pattern.search(message):
      space = (found.groupdict().get('space') or found[1]).lower()
      break
  used = limit = None
  for wanted, there in _USED:
    if found := re.search(wanted, message):
      used = _bytes(found)
      limit = _bytes(found) if there and (found := re.search(there, message)) else None
      break
  found_overflow = Overflow(space, used, limit)
  if not found_overflow.on_chip:  # there no single operation is at fault
    return found_overflow
  return dataclasses.replace(found_overflow, where=_where(message))


def _where(message: str) -> str:
  for pattern in _WHERE:
    if found := pattern.search(message):
      return re.sub(r'\.\d+$', '', found[1])
  return ''


def _bytes(found: re.Match[str]) -> int:
  return int(float(found[1]) * _UNITS[found[2]])


def exhausted(error: BaseException) -> Overflow | None:
  """What ran out of memory, if that is what an error or its cause says; None if it says another."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, MemoryError):
      return dataclasses.replace(overflow(str(cause), HOST), space=HOST)
    if _WORDS.search(str(cause)):
      named = type(cause).__name__
      device = named in ('JaxRuntimeError', 'XlaRuntimeError', 'OutOfMemoryError')
      return overflow(str(cause), DEVICE if device else HOST)
    cause = cause.__cause__ or cause.__context__
  return None
