"""Reads the text of a compiled XLA program: computations, instructions, shapes. Text in, data out.

The grammar is that of `Compiled.as_text()`: each instruction as
`%name = shape opcode(%operand, ...), attribute=value, ...`. Where printers differ, both spellings
give the same program: newer ones write `%x#1` for an element of a tuple, without an instruction for
it.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

# Bits of one element; whatever is not here (token, opaque) takes no space.
_BITS = {
  'pred': 8,
  **{f'{kind}{bits}': bits for kind in 'su' for bits in (2, 4, 8, 16, 32, 64)},
  'bf16': 16,
  'f16': 16,
  'f32': 32,
  'f64': 64,
  'c64': 64,
  'f8e4m3fn': 8,
  'f8e5m2': 8,
}
_ARRAY = re.compile(r'(?<!\w)([a-z]\w*+)\[([\d,]*)\](?:\{([^}]*)\})?')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = ')
_OPCODE = re.compile(r'\s*([a-z][\w\-]*)\(')
_NAME = re.compile(r'%([\w.\-]+(?:#\d+)*)')
HBM = 0
_MOST_TRIPS = 10**15


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape.

  Attributes:
    dtype: XLA's name of the element type.
    dims: logical sizes.
    layout: text between the braces: order of dimensions, tiles, memory space.
  """

  dtype: str
  dims: tuple[int, ...]
  layout: str = ''

  @property
  def space(self) -> int:
    """Memory space: 0 is HBM, others are on the chip (1 VMEM, 2 flags, 3 CMEM, 6 SMEM)."""
    found = re.search(r'S\((\d+)\)', self.layout)
    return int(found[1]) if found else HBM

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    """Size without the padding of tiles."""
    return self.elements * _BITS.get(self.dtype, 0) // 8

  @property
  def padded_bytes(self) -> int:
    """Size in memory: the minor dimensions are rounded up to the first tile of the layout."""
    order, _, rest = self.layout.partition(':')
    tile = re.match(r'T\(([\d,]+)\)', rest)
    if not tile or not self.dims:
      return self.bytes
    sizes = [self.dims[int(i)] for i in reversed(order.split(','))] if order else list(self.dims)
    tiles = [int(n) for n in tile[1].split(',')][-len(sizes) :]
    for i, t in enumerate(reversed(tiles), 1):
      sizes[-i] = -(-sizes[-i] // t) * t
    return math.prod(sizes) * _BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name, opcode: without the percent sign.
    arrays: the arrays of the result, those of a tuple in order, nested tuples flattened.
    operands: names.
    attributes: the rest of the line.
    arguments: the text between the parentheses (the value of a constant, the number of a
      parameter).
    is_root: whether it is its computation's result.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str
  arguments: str
  is_root: bool

  def called(self, key: str) -> str | None:
    """Name of the computation in an attribute such as body=%x or called_computations={%x}."""
    found = re.search(rf'\b{key}=\{{?%?([\w.\-]+)', self.attributes)
    return found[1] if found else None

  @property
  def op_name(self) -> str:
    """JAX's name stack of the operation that this came from, '' if the compiler made it up."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ''

  @property
  def stack_frame(self) -> int:
    found = re.search(r'stack_frame_id=(\d+)', self.attributes)
    return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Computation:
  """A named list of instructions, in the order in which they are scheduled."""

  name: str
  instructions: tuple[Instruction, ...]

  @functools.cached_property
  def by_name(self) -> Mapping[str, Instruction]:
    return {i.name: i for i in self.instructions}

  @functools.cached_property
  def users(self) -> Mapping[str, Sequence[Instruction]]:
    """Instructions that have an instruction as operand, by its name."""
    users: dict[str, list[Instruction]] = {i.name: [] for i in self.instructions}
    for instruction in self.instructions:
      for operand in dict.fromkeys(instruction.operands):
        if operand in users:
          users[operand].append(instruction)
    return users

  @functools.cached_property
  def parameters(self) -> Mapping[int, Instruction]:
    found = [i for i in self.instructions if i.opcode == 'parameter']
    return {int(i.arguments): i for i in found}

  @property
  def root(self) -> Instruction:
    found = next((i for i in self.instructions if i.is_root), None)
    if found is None:
      raise ValueError(f'the computation {self.name} has no root: is the text cut short?')
    return found


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program.

  Attributes:
    computations: by name.
    entry: name of the one that runs.
    frames: source line 'file:line' of each stack frame id, innermost first.
  """

  computations: Mapping[str, Computation]
  entry: str
  frames: Mapping[int, Sequence[str]]

  def executed(self) -> Iterator[tuple[Computation, float]]:
    """Computations that run as such (not inside a fusion), and how often each runs.

    Both branches of a conditional count as run.
    """
    pending: list[tuple[str, float, tuple[str, ...]]] = [(self.entry, 1.0, ())]
    while pending:
      name, times, callers = pending.pop()
      if name in callers:
        raise ValueError(f'the computation {name} calls itself, which no compiled program does')
      computation, callers = self._computation(name), (*callers, name)
      yield computation, times
      for instruction in computation.instructions:
        pending += [(callee, times * often, callers) for callee, often in self.calls(instruction)]

  def calls(self, instruction: Instruction) -> list[tuple[str, float]]:
    """Computations that an instruction runs as such, and how often; both branches of a conditional.

    Raises:
      ValueError: a loop without end, or of a length that nothing tells.
    """
    if instruction.opcode == 'while':
      trips = self.trip_count(instruction)
      if trips > _MOST_TRIPS:
        raise ValueError(f'the loop {instruction.name} runs over {_MOST_TRIPS:.0e} times')
      return [(_required(instruction, 'body'), float(trips))]
    if instruction.opcode in ('call', 'async-start'):
      key = 'to_apply' if instruction.called('to_apply') else 'calls'
      callee = instruction.called(key)
      return [] if callee is None else [(callee, 1.0)]
    if instruction.opcode == 'conditional':
      listed = re.search(r'branch_computations=\{([^}]*)\}', instruction.attributes)
      names = _NAME.findall(listed[1]) if listed else []
      names += [n for k in ('true', 'false') if (n := instruction.called(f'{k}_computation'))]
      return [(name, 1.0) for name in names]
    return []

  def _computation(self, name: str) -> Computation:
    if (found := self.computations.get(name)) is None:
      raise ValueError(f'the program calls {name!r}, which is not in its text: is that cut short?')
    return found

  def trip_count(self, loop: Instruction) -> int:
    """How often a while loop's body runs.

    Raises:
      ValueError: neither the compiler's annotation nor a comparison with a constant says so.
    """
    if known := re.search(r'known_trip_count[^\d]*(\d+)', loop.attributes):
      return int(known[1])
    body, condition = (self._computation(_required(loop, key)) for key in ('body', 'condition'))
    compare = condition.root
    if compare.opcode == 'compare' and 'direction=LT' in compare.attributes:
      operands = [condition.by_name.get(name) for name in compare.operands]
      counter, bound = operands if len(operands) == 2 else (None, None)
      if counter is None or bound is None:
        raise ValueError(f'{condition.name}: {compare.name} compares what is not there')
      if counter.opcode == 'get-tuple-element' and bound.opcode == 'constant':
        at = re.search(r'index=(\d+)', counter.attributes)
        step = _step(body, int(at[1])) if at else None
        if step:
          return -(-int(bound.arguments) // step)
    raise ValueError(f'cannot tell how often the loop {loop.name} runs: {loop.attributes[:200]}')

  def source_line(self, instruction: Instruction, package: str) -> str:
    """The innermost source line inside a package, 'layers.py:12'; '' if there is none."""
    for line in self.frames.get(instruction.stack_frame, ()):
      if f'/{package}/' in line:
        return line.rpartition(f'/{package}/')[2]
    return ''


def _step(body: Computation, index: int) -> int | None:
  """By how much a loop's body increases its counter; counters begin at 0."""
  new = body.by_name[body.root.operands[index]]
  if new.opcode != 'add':
    return None
  steps = [body.by_name[name] for name in new.operands]
  return next((int(i.arguments) for i in steps if i.opcode == 'constant'), None)


def _required(instruction: Instruction, key: str) -> str:
  name = instruction.called(key)
  if name is None:
    raise ValueError(f'{instruction.opcode} {instruction.name} has no {key}')
  return name


def parse(text: str) -> Module:
  """Parses a compiled program.

  Raises:
    ValueError: there is no entry computation.
  """
  computations: dict[str, Computation] = {}
  entry, name = '', ''
  body: list[Instruction] = []
  shapes: dict[str, str] = {}
  for line in text.splitlines():
    if header := _HEADER.match(line):
      name, body, shapes = header[2], [], {}
      entry = name if header[1] else entry
    elif line.startswith('}') and name:
      computations[name] = Computation(name, tuple(body))
      name = ''
    elif name and (start := _INSTRUCTION.match(line)):
      instruction, shapes[start[2]] = _instruction(line, start)
      body += [*_elements(instruction.operands, shapes), instruction]
  if not entry:
    raise ValueError('the text has no ENTRY computation: is it that of a compiled program?')
  return Module(computations, entry, _frames(text))


def _instruction(line: str, start: re.Match[str]) -> tuple[Instruction, str]:
  """The instruction of a line, and the text of its shape."""
  tuple_shape = line.startswith('(', start.end())
  shape_end = _closing(line, start.end()) if tuple_shape else line.find(' ', start.end())
  opcode = _OPCODE.match(line, shape_end) if shape_end >= 0 else None
  if opcode is None:
    raise ValueError(f'no opcode in {line[:200]!r}')
  end = _closing(line, opcode.end() - 1)
  arguments, shape = line[opcode.end() : end - 1], line[start.end() : shape_end]
  instruction = Instruction(
    name=start[2],
    opcode=opcode[1],
    arrays=arrays(shape),
    operands=tuple(_NAME.findall(arguments)),
    attributes=line[end:],
    arguments=arguments,
    is_root=bool(start[1]),
  )
  return instruction, shape


def _elements(operands: Sequence[str], shapes: dict[str, str]) -> Iterator[Instruction]:
  """An instruction for each `x#1` of the operands that has none yet, as older printers write it.

  Args:
    operands: names; of `x#1#0` the element `x#1` comes first.
    shapes: texts of the shapes of what has been read; those of the elements are added.
  """
  for name in operands:
    source, mark, index = name.rpartition('#')
    if mark and name not in shapes:
      yield from _elements([source], shapes)
      parts = _parts(shapes.get(source, ''))
      if not index.isdecimal() or int(index) >= len(parts):
        raise ValueError(f'{name} is an element of what is not there: is the text cut short?')
      shapes[name] = parts[int(index)]
      attributes = f', index={index}'
      read = arrays(shapes[name])
      yield Instruction(name, 'get-tuple-element', read, (source,), attributes, f'%{source}', False)


def _parts(shape: str) -> list[str]:
  """Texts of the shapes in a tuple's."""
  parts, depth = [''], 0
  for character in re.sub(r'/\*.*?\*/', '', shape).strip()[1:-1]:  # /*index=5*/
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and depth == 0:
      parts.append('')
    else:
      parts[-1] += character
  return parts


def arrays(shape: str) -> tuple[Array, ...]:
  """The arrays of a shape's text, tuples flattened."""
  return tuple(
    Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
    for dtype, dims, layout in _ARRAY.findall(shape)
  )


def _closing(line: str, opening: int) -> int:
  """Position after the parenthesis that closes the one at `opening`."""
  depth = 0
  for i in range(opening, len(line)):
    depth += (line[i] == '(') - (line[i] == ')')
    if depth == 0:
      return i + 1
  return len(line)


def _frames(text: str) -> dict[int, list[str]]:
  """The tables of stack frames at the head of the text, as 'file:line' lists, innermost first."""

  def table(title: str) -> dict[int, str]:
    found = re.search(rf'^{title}\n((?:\d+ .*\n)+)', text, re.MULTILINE)
    rows = (line.split(' ', 1) for line in found[1].splitlines()) if found else ()
    return {int(number): row for number, row in rows}

  def field(row: str, name: str) -> int:
    found = re.search(rf'{name}=(\d+)', row)
    return int(found[1]) if found else 0

  files, places = table('FileNames'), table('FileLocations')
  parents = {}
  lines = {}
  for number, row in table('StackFrames').items():
    place = places.get(field(row, 'file_location_id'), '')
    file = files.get(field(place, 'file_name_id'), '').strip('"')
    lines[number] = f'{file}:{field(place, "line")}'
    parents[number] = field(row, 'parent_frame_id')
  chains: dict[int, list[str]] = {}
  for number in lines:
    chain: list[str] = []
    at = number
    while at in lines and len(chain) < 100:
      chain.append(lines[at])
      at = parents[at] if parents[at] != at else 0
    chains[number] = chain
  return chains
