"""Names of mT5's parameters in each layout in the wild, as one table read in any direction.

Layouts:
  scanned: ours with `scan_layers`; T5X examples/scalable_t5. One name holds all layers of a stack.
  unrolled: ours without `scan_layers`; T5X examples/t5. Every released mT5 is in this layout.
  hf: the state dict of transformers' {MT5,T5,UMT5}ForConditionalGeneration.
A stack shares its table of position biases, which then lies outside its layers, or, as in
scalable_t5 and umT5, each layer has one.

Names are whole paths joined by '/' (ours) or '.' (hf). Sources of the pairs:
t5x/examples/t5/network.py and transformers' convert_t5x_checkpoint_to_pytorch.py. This module knows
strings only.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator
from typing import Literal

Layout = Literal['scanned', 'unrolled', 'hf']
LAYOUTS: tuple[Layout, ...] = ('scanned', 'unrolled', 'hf')
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Rule:
  """One parameter, or one in each layer where the templates hold `{layer}`.

  Attributes:
    scanned, unrolled, hf: template of the name in each layout.
    stack: 'encoder' or 'decoder' for a parameter of a layer, None for one outside the layers.
    transposed: PyTorch keeps the transpose (nn.Linear is [out, in]; relpos is nn.Embedding).
  """

  scanned: str
  unrolled: str
  hf: str
  stack: Literal['encoder', 'decoder'] | None = None
  transposed: bool = False

  def name(self, layout: Layout, layer: int | None = None) -> str:
    return getattr(self, layout).replace('{layer}', str(layer))


def _layer_rules(
  stack: Literal['encoder', 'decoder'], attentions: tuple[tuple[str, str, str], ...]
) -> Iterator[Rule]:
  """Rules of one stack; `attentions` gives ours, its norm, and HF's name of each attention."""

  def rule(ours: str, hf: str, transposed: bool) -> Rule:
    scanned, unrolled = f'{stack}/{stack}/{ours}', f'{stack}/layers_{{layer}}/{ours}'
    return Rule(scanned, unrolled, f'{stack}.block.{{layer}}.layer.{hf}.weight', stack, transposed)

  relpos = f'0.{attentions[0][2]}.relative_attention_bias'
  yield rule('relpos_bias/rel_embedding', relpos, True)
  for i, (attention, norm, hf_attention) in enumerate(attentions):
    yield rule(f'{norm}/scale', f'{i}.layer_norm', False)
    for projection in ('query', 'key', 'value', 'out'):
      yield rule(f'{attention}/{projection}/kernel', f'{i}.{hf_attention}.{projection[0]}', True)
  i = len(attentions)
  yield rule('pre_mlp_layer_norm/scale', f'{i}.layer_norm', False)
  for kernel in ('wi', 'wi_0', 'wi_1', 'wo'):
    yield rule(f'mlp/{kernel}/kernel', f'{i}.DenseReluDense.{kernel}', True)


def _stack_rules(stack: Literal['encoder', 'decoder']) -> Iterator[Rule]:
  ours = f'{stack}/relpos_bias/rel_embedding'
  hf = f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
  yield Rule(ours, ours, hf, transposed=True)
  ours = f'{stack}/{stack}_norm/scale'
  yield Rule(ours, ours, f'{stack}.final_layer_norm.weight')


RULES: tuple[Rule, ...] = (
  Rule('token_embedder/embedding', 'token_embedder/embedding', 'shared.weight'),
  *_stack_rules('encoder'),
  *_layer_rules('encoder', (('attention', 'pre_attention_layer_norm', 'SelfAttention'),)),
  *_stack_rules('decoder'),
  *_layer_rules(
    'decoder',
    (
      ('self_attention', 'pre_self_attention_layer_norm', 'SelfAttention'),
      ('encoder_decoder_attention', 'pre_cross_attention_layer_norm', 'EncDecAttention'),
    ),
  ),
  Rule(
    'decoder/logits_dense/kernel', 'decoder/logits_dense/kernel', 'lm_head.weight', transposed=True
  ),
)

# Second names of the input table in PyTorch files: transformers 2 to 4 wrote some of them.
HF_TABLE = 'shared.weight'
HF_TABLE_ALIASES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
# In checkpoints converted from the Mesh TensorFlow T5; transformers ignores it as well.
HF_IGNORED = ('decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',)


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
  return re.compile(re.escape(template).replace(r'\{layer\}', '(?P<layer>0|[1-9][0-9]*)'))


def _matches(name: str, layout: Layout, rules: Iterable[Rule]) -> list[tuple[Rule, int | None]]:
  if layout not in LAYOUTS:
    raise ValueError(f'unknown layout {layout!r}; layouts are {LAYOUTS}')
  found: list[tuple[Rule, int | None]] = []
  for rule in rules:
    if matched := _pattern(getattr(rule, layout)).fullmatch(name):
      layer = matched.groupdict().get('layer')
      found.append((rule, None if layer is None else int(layer)))
  return found


@dataclasses.dataclass(frozen=True)
class Table:
  """The parameters of one network: RULES narrowed to its depth, its MLP and its head.

  Attributes:
    num_encoder_layers, num_decoder_layers: depth of each stack.
    mlp_inputs: input kernels of an MLP: `wi` when 1, else `wi_0` ... (transformers knows 1 and 2).
    tied: the output head is the input table, so there is no `logits_dense`.
    relpos_per_layer: each layer has a table of position biases.
    has_decoder: False for the encoder of a network by itself.
  """

  num_encoder_layers: int
  num_decoder_layers: int
  mlp_inputs: int = 2
  tied: bool = False
  relpos_per_layer: bool = False
  has_decoder: bool = True

  def __post_init__(self):
    if self.mlp_inputs not in (1, 2):
      raise ValueError(f'an MLP has 1 or 2 input kernels in transformers, got {self.mlp_inputs}')

  def depth(self, rule: Rule) -> int | None:
    """Number of layers of the rule's stack, None for a parameter outside the layers."""
    depths = {'encoder': self.num_encoder_layers, 'decoder': self.num_decoder_layers}
    return depths[rule.stack] if rule.stack else None

  def rules(self) -> list[Rule]:
    """The rules that this network uses, in canonical order."""
    absent = {'/wi_0/', '/wi_1/'} if self.mlp_inputs == 1 else {'/wi/'}
    if self.tied:
      absent.add('/logits_dense/')
    if not self.has_decoder:
      absent.add('decoder/')
    return [
      rule
      for rule in RULES
      if not any(part in rule.unrolled for part in absent)
      and ('/relpos_bias/' not in rule.unrolled or bool(rule.stack) == self.relpos_per_layer)
    ]

  def match(self, name: str, layout: Layout) -> tuple[Rule, int | None]:
    """The one rule of a whole name, and its layer (None where the name has no layer number).

    Raises:
      ValueError: no rule matches, or several do (a fault in RULES).
    """
    found = _matches(name, layout, self.rules())
    if len(found) != 1:
      rules = [getattr(rule, layout) for rule, _ in found]
      raise ValueError(
        f'{name!r} must match exactly one rule of layout {layout!r}, matches {len(found)}: {rules}'
      )
    return found[0]

  def translate(self, name: str, source: Literal['unrolled', 'hf'], target: Layout) -> str:
    """The same parameter's name in another layout; many layers share one name in 'scanned'."""
    rule, layer = self.match(name, source)
    return rule.name(target, layer)

  def parameters(self) -> Iterator[tuple[Rule, int | None]]:
    """Every parameter of the unrolled and hf layouts with its layer, layer by layer."""
    rules = self.rules()
    yield from ((rule, None) for rule in rules if rule.stack is None)
    for stack, depth in (
      ('encoder', self.num_encoder_layers),
      ('decoder', self.num_decoder_layers),
    ):
      for layer in range(depth if stack == 'encoder' or self.has_decoder else 0):
        yield from ((rule, layer) for rule in rules if rule.stack == stack)

  def expected(self, layout: Layout) -> list[str]:
    """All names of the network in a layout, each once."""
    if layout == 'scanned':
      return [rule.scanned for rule in self.rules()]
    return [rule.name(layout, layer) for rule, layer in self.parameters()]

  def check(self, names: Iterable[str], layout: Layout, where: str = 'parameters') -> None:
    """Refuses names that are unknown, missing, of a layer too many, or matched by two rules.

    Raises:
      ValueError: says how many names are wrong, shows up to five, and what was expected.
    """
    given, expected = set(names), set(self.expected(layout))
    rules = self.rules()
    known = {n for n in given if n in expected or _matches(n, layout, RULES)}
    problems = {
      'matched by no rule': list(given - known),
      'matched by several rules': [n for n in given if len(_matches(n, layout, rules)) > 1],
      'not part of this network': list(known - expected),
      'missing': list(expected - given),
    }
    if any(problems.values()):
      listed = '; '.join(
        f'{len(bad)} {what}: {sorted(bad)[:_SHOWN]}' for what, bad in problems.items() if bad
      )
      raise ValueError(
        f'{where}: {len(given)} names in layout {layout!r} do not fit a network of '
        f'{self.num_encoder_layers} encoder and {self.num_decoder_layers} decoder layers, '
        f'{self.mlp_inputs} MLP input kernels, position biases of each '
        f'{"layer" if self.relpos_per_layer else "stack"} and '
        f'{"a tied" if self.tied else "an untied"} head, '
        f'which has {len(expected)}. {listed}'
      )


def hf_names(names: Iterable[str], *, tied: bool) -> dict[str, str]:
  """Maps each parameter's canonical hf name to the name under which a file holds it.

  Files of older transformers hold the input table several times, or under an alias only, and a
  tied model may hold its head as well; whichever of the equal tensors is there is taken.
  """
  held = {name: name for name in names if name not in HF_IGNORED}
  aliases = [*HF_TABLE_ALIASES, *(['lm_head.weight'] if tied else [])]
  for alias in aliases:
    if alias in held:
      held.setdefault(HF_TABLE, alias)
      del held[alias]
  return held


def kernel_of_hf(module: str) -> str | None:
  """The unrolled name of the kernel of a module of transformers, None where it has none."""
  found = [
    (r, i) for r, i in _matches(f'{module}.weight', 'hf', RULES) if r.scanned.endswith('/kernel')
  ]
  return found[0][0].name('unrolled', found[0][1]) if len(found) == 1 else None


def hf_of_kernel(kernel: str) -> str:
  """The inverse of `kernel_of_hf`.

  Raises:
    ValueError: no such kernel.
  """
  found = _matches(kernel, 'unrolled', RULES)
  if len(found) != 1 or not kernel.endswith('/kernel'):
    raise ValueError(f'{kernel!r} is no kernel of T5')
  return found[0][0].name('hf', found[0][1]).removesuffix('.weight')
