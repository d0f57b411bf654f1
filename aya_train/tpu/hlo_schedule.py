"""How long a compiled program takes one chip in the order in which it was scheduled.

Between `everything overlaps` (the roofs of aya_train/tpu/roofline.py) and `nothing does` lies what
the compiler arranged: a collective hides behind the instructions between its start and its end,
and one that is not asynchronous behind nothing. The instructions are played back in order, at the
chip's published rates.
"""

import dataclasses
import re

from aya_train.tpu import hlo, hlo_costs, topologies


@dataclasses.dataclass(frozen=True)
class Playback:
  """One run of a program in its own order, in seconds of one chip.

  Attributes:
    seconds: in all.
    wire_seconds: of all collectives, one after another.
    wire_waits: how much of them nothing hides: the chip waits for the wire.
    copy_waits: how long it waits for copies from HBM to memories on the chip.
  """

  seconds: float
  wire_seconds: float
  wire_waits: float
  copy_waits: float


def play(text: str, chip: topologies.Chip) -> Playback:
  """Plays the text of a compiled program back.

  An instruction takes the time of its matrix products, or of its own traffic with HBM if that is
  longer. Copies that run beside it have the rest of HBM's bandwidth. Collectives pass the wire one
  at a time. What a loop has begun is over when the next round begins.

  Raises:
    ValueError: the text is not that of a compiled program.
  """
  module = hlo.parse(text)
  for _ in module.executed():  # refuses computations that are not there, or that call themselves
    pass
  return _Player(module, chip).run(module.entry)


@dataclasses.dataclass
class _Clock:
  """What runs beside the instructions of one computation.

  Attributes:
    now: seconds since it began.
    wire_free: when the wire has sent what was begun.
    copied, asked: seconds of HBM's bandwidth that copies beside the instructions had, and that all
      of those begun need.
  """

  now: float = 0.0
  wire_free: float = 0.0
  copied: float = 0.0
  asked: float = 0.0
  wire_seconds: float = 0.0
  wire_waits: float = 0.0
  copy_waits: float = 0.0

  def work(self, seconds: float, of_hbm: float = 0.0) -> None:
    self.now += seconds
    self.copied = min(self.asked, self.copied + max(0.0, seconds - of_hbm))

  def send(self, seconds: float, since: float | None = None) -> float:
    """Begins a collective, or ends one that has had the wire `since`; when it will be over."""
    self.wire_seconds += seconds
    begin = max(self.now, self.wire_free) if since is None else since
    self.wire_free = max(self.wire_free, begin + seconds)
    return begin + seconds

  def wait(self, until: float) -> None:
    """Waits for a collective."""
    late = max(0.0, until - self.now)
    self.wire_waits += late
    self.work(late)

  def ask(self, seconds: float) -> float:
    """Begins a copy; the bandwidth that copies will have had when it is over."""
    self.asked += seconds
    return self.asked

  def wait_copied(self, until: float) -> None:
    late = max(0.0, until - self.copied)
    self.copy_waits += late
    self.work(late)

  def add(self, run: Playback, times: float) -> None:
    """Another computation, after all that was begun before it."""
    self.end()
    self.now += times * run.seconds
    self.wire_seconds += times * run.wire_seconds
    self.wire_waits += times * run.wire_waits
    self.copy_waits += times * run.copy_waits

  def end(self) -> None:
    self.wait(self.wire_free)
    self.wait_copied(self.asked)


class _Player:
  """Plays computations, each of them once."""

  def __init__(self, module: hlo.Module, chip: topologies.Chip):
    self._module, self._chip = module, chip
    self._played: dict[str, Playback] = {}

  def run(self, name: str) -> Playback:
    if name not in self._played:
      computation, clock = self._module.computations[name], _Clock()
      begun: dict[str, tuple[float, float]] = {}  # see `_begin`
      chains: dict[str, float] = {}  # when the first fusion of a chain began
      for instruction in computation.instructions:
        self._play(computation, instruction, clock, begun, chains)
      clock.end()
      self._played[name] = Playback(
        clock.now, clock.wire_seconds, clock.wire_waits, clock.copy_waits
      )
    return self._played[name]

  def _play(
    self,
    computation: hlo.Computation,
    instruction: hlo.Instruction,
    clock: _Clock,
    begun: dict[str, tuple[float, float]],
    chains: dict[str, float],
  ) -> None:
    opcode = instruction.opcode
    if opcode in ('while', 'conditional', 'call'):
      for name, times in self._module.calls(instruction):
        clock.add(self.run(name), times)
    elif opcode.endswith('-start'):
      begun[instruction.name] = self._begin(computation, instruction, clock)
    elif opcode.endswith('-done'):
      for name in instruction.operands:
        sent, copied = begun.get(name, (0.0, 0.0))
        clock.wait(sent)
        clock.wait_copied(copied)
    else:
      self._work(computation, instruction, clock, chains)
      if wire := hlo_costs.wire(self._module, instruction):
        seconds = wire[2] / self._chip.ici_bandwidth
        clock.wait(clock.send(seconds, chains.pop(self._chain(instruction), None)))

  def _begin(
    self, computation: hlo.Computation, instruction: hlo.Instruction, clock: _Clock
  ) -> tuple[float, float]:
    """Begins a collective or a copy; when the wire and the bandwidth of copies have done it."""
    parts = [(computation, instruction)]
    if instruction.opcode == 'async-start':
      called = (self._module.computations[name] for name, _ in self._module.calls(instruction))
      parts = [(inner, part) for inner in called for part in inner.instructions]
    sent = copied = 0.0
    for inner, part in parts:
      if wire := hlo_costs.wire(self._module, part):
        until = clock.send(wire[2] / self._chip.ici_bandwidth)
        sent = max(sent, until)
      traffic = hlo_costs.moved_bytes(self._module, inner, part)
      if traffic and part.opcode.removesuffix('-start') not in hlo_costs.COLLECTIVES:
        copied = clock.ask(traffic / self._chip.hbm_bandwidth)
    return sent, copied

  def _work(
    self,
    computation: hlo.Computation,
    instruction: hlo.Instruction,
    clock: _Clock,
    chains: dict[str, float],
  ) -> None:
    """The instruction's own time; of a chain of fusions around a collective, from the first on."""
    if chain := self._chain(instruction):
      chains.setdefault(chain, max(clock.now, clock.wire_free))
    flops = hlo_costs.matmul_flops(self._module, computation, instruction)
    traffic = hlo_costs.moved_bytes(self._module, computation, instruction)
    of_hbm = traffic / self._chip.hbm_bandwidth
    clock.work(max(flops / self._chip.flops, of_hbm), of_hbm)

  def _chain(self, instruction: hlo.Instruction) -> str:
    """The chain that a fusion belongs to where a collective runs beside others (v5e), else ''."""
    called = instruction.called('calls') if instruction.opcode == 'fusion' else None
    if called is None:
      return ''
    for inner in self._module.computations[called].instructions:
      if found := re.search(r'chain_id="?(\w+)', inner.attributes):
        return found[1]
    return ''
