"""Counting costs in the text of compiled programs."""

import pathlib
import re

import pytest

from aya_train.tpu import hlo, hlo_costs

PRODUCT = """HloModule jit_f, is_scheduled=true

%body (p: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %p = (s32[]{:T(128)}, bf16[64,32]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[64,32]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %one = s32[]{:T(128)} constant(STEP)
  %next = s32[]{:T(128)} add(%i, %one)
  %w = bf16[32,32]{1,0:T(8,128)(2,1)} constant({...})
  %y = bf16[64,32]{1,0:T(8,128)(2,1)} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(step)/jvp(T)/encoder/mlp/wi_0/dot_general"}
  ROOT %t = (s32[]{:T(128)}, bf16[64,32]{1,0:T(8,128)(2,1)}) tuple(%next, %y)
}

%condition (p: (s32[], bf16[64,32])) -> pred[] {
  %p = (s32[]{:T(128)}, bf16[64,32]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %bound = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

ENTRY %main (a: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %a = (s32[]{:T(128)}, bf16[64,32]{1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %loop = (s32[]{:T(128)}, bf16[64,32]{1,0:T(8,128)(2,1)}) while(%a), condition=%condition, body=%body
}
"""  # noqa: E501


def entry(*lines):
  return 'HloModule m\n\nENTRY %main (a: f32[1]) -> f32[1] {\n  ' + '\n  '.join(lines) + '\n}\n'


NESTED = entry(
  '%a = f32[1]{0} parameter(0)',
  '%p = ((f32[8,128]{1,0:T(8,128)}, bf16[4]{0}), /*index=1*/(s32[2]{0}, f32[128,16]{1,0})) '
  'custom-call(%a)',
  '%right = (s32[2]{0}, f32[128,16]{1,0}) get-tuple-element(%p), index=1',
  '%left = (f32[8,128]{1,0:T(8,128)}, bf16[4]{0}) get-tuple-element(%p), index=0',
  '%x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%left), index=0',
  '%w = f32[128,16]{1,0} get-tuple-element(%right), index=1',
  'ROOT %y = f32[8,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}',
)


def with_elements_in_place(text):
  """The program as newer printers write it: `%p#1`, and no instruction for the element."""
  done = []
  for computation in text.split('\n\n'):
    read = re.compile(r'\n +%(\w+) = \S.* get-tuple-element\(%(\S+)\), index=(\d+)')
    while found := read.search(computation):
      computation = computation.replace(found[0], '', 1)
      computation = re.sub(rf'%{found[1]}\b', f'%{found[2]}#{found[3]}', computation)
    done.append(computation)
  return '\n\n'.join(done)


@pytest.mark.parametrize('text', [PRODUCT.replace('STEP', '2'), NESTED], ids=['loop', 'nested'])
def test_elements_of_tuples_in_either_spelling_are_the_same_program(text):
  newer = with_elements_in_place(text)
  assert '#1' in newer and 'get-tuple-element' not in newer
  costs = hlo_costs.analyse(newer)
  assert costs == hlo_costs.analyse(text)
  assert costs.matmul_flops > 0 and costs.hbm_bytes > 0


def test_an_element_knows_its_own_shape():
  module = hlo.parse(with_elements_in_place(NESTED))
  found = module.computations['main'].by_name
  assert {name: [a.dims for a in found[name].arrays] for name in found if '#' in name} == {
    'p#0': [(8, 128), (4,)],
    'p#1': [(2,), (128, 16)],
    'p#0#0': [(8, 128)],
    'p#1#1': [(128, 16)],
  }


KERNEL = """HloModule m

%kernel (t: f32[64,128], i: s32[1024]) -> f32[1024] {
  %t = f32[64,128]{1,0:T(8,128)} parameter(0)
  %i = s32[1024]{0:T(1024)} parameter(1)
  ROOT %g = f32[1024]{0:T(1024)} gather(%t, %i), slice_sizes={1,1}
}

WRAPPER
ENTRY %main (a: f32[1]) -> f32[1024] {
  %a = f32[1]{0} parameter(0)
  %s = ((), f32[1024]{0:T(1024)}, u32[]{:S(8)}) START
  ROOT %d = f32[1024]{0:T(1024)} DONE(%s)
}
"""
CALL = 'custom_call_target="sparse", called_computations={%kernel}'
WRAPPER = f"""%beside (t: f32[64,128], i: s32[1024]) -> f32[1024] {{
  %t = f32[64,128]{{1,0:T(8,128)}} parameter(0)
  %i = s32[1024]{{0:T(1024)}} parameter(1)
  ROOT %c = f32[1024]{{0:T(1024)}} custom-call(%t, %i), {CALL}
}}
"""


@pytest.mark.parametrize(
  ('wrapper', 'start', 'done'),
  [
    (WRAPPER, 'async-start(), calls=%beside', 'async-done'),
    ('', f'custom-call-start(), {CALL}', 'custom-call-done'),
  ],
)
def test_a_kernel_beside_other_work_counts_the_same_in_either_spelling(wrapper, start, done):
  text = KERNEL.replace('WRAPPER', wrapper).replace('START', start).replace('DONE', done)
  costs = hlo_costs.analyse(text)
  assert costs.hbm_bytes == costs.array_bytes == 4 * (64 * 128 + 1024 + 1024)


@pytest.mark.parametrize('name', ['closed_call', 'eval_jaxpr'])
def test_names_of_traced_calls_are_no_places(name):
  stack = f'jit(step)/jvp(T)/decoder/while/body/{name}/decoder/mlp/wi_0/dot_general'
  assert hlo_costs.place(stack) == 'forward decoder/mlp/wi_0'


@pytest.mark.parametrize(('step', 'trips'), [(1, 24), (2, 12), (5, 5)])
def test_a_product_in_a_loop_counts_as_often_as_the_loop_runs(step, trips):
  costs = hlo_costs.analyse(PRODUCT.replace('STEP', str(step)))
  assert costs.matmul_flops == trips * 2 * 64 * 32 * 32
  assert list(costs.matmul_flops_by_place) == ['forward encoder/mlp/wi_0']


def test_a_loop_without_a_known_end_is_refused():
  with pytest.raises(ValueError, match='how often the loop loop runs'):
    hlo_costs.analyse(PRODUCT.replace('direction=LT', 'direction=NE').replace('STEP', '1'))


def test_a_batched_product_written_as_a_dilated_convolution_counts_its_products_only():
  # 'bthk,bshk->bhts' of 4 rows, 64 heads, 1024 x 1024 scores and width 64, as a v4 compiles it.
  text = entry(
    '%q = bf16[4,1024,64,64]{1,3,2,0} parameter(0)',
    '%k = bf16[4,64,1024,64]{1,3,2,0} parameter(1)',
    'ROOT %c = bf16[4,64,1024,1024]{2,3,1,0} convolution(%q, %k), window={size=4x64 '
    'stride=3x63 lhs_dilate=4x64}, dim_labels=0b1f_01oi->01bf',
  )
  assert hlo_costs.analyse(text).matmul_flops == 2 * 4 * 64 * 1024 * 1024 * 64


def test_a_kernel_counts_as_its_author_states():
  text = entry(
    '%q = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)',
    'ROOT %k = bf16[8,128]{1,0:T(8,128)(2,1)} custom-call(%q), custom_call_target='
    '"tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"77",'
    '"transcendentals":"1","bytes_accessed":"2"}}}',
  )
  assert hlo_costs.analyse(text).matmul_flops == 77


@pytest.mark.parametrize(
  ('kind', 'groups', 'size', 'wire'),
  [
    ('all-gather', "replica_groups=mesh['a'=4,'b'=16] {'b'}", 16, 1024 * 15 / 16),
    ('all-gather', "replica_groups=mesh['a'=64] {'a':(4)16}", 16, 1024 * 15 / 16),
    ('all-reduce', 'replica_groups=[4,16]<=[64]', 16, 2 * 1024 * 15 / 16),
    ('all-to-all', 'replica_groups={{0,1},{2,3}}', 2, 512),
    ('reduce-scatter', 'replica_groups={{0,1,2,3}}', 4, 3 * 1024),
    ('collective-permute', 'source_target_pairs={{0,1},{1,0}}', 1, 1024),
  ],
)
def test_bytes_on_the_wire_are_those_of_a_ring(kind, groups, size, wire):
  text = entry(
    '%x = f32[256]{0} parameter(0)',
    f'ROOT %r = f32[256]{{0}} {kind}(%x), channel_id=1, {groups}, to_apply=%add',
  )
  (found,) = hlo_costs.analyse(text).collectives
  assert (found.kind, found.group_size, found.count, found.wire_bytes) == (kind, size, 1, wire)


CHAIN = """HloModule m

%start (p: f32[16]) -> (f32[16], f32[64]) {
  %p = f32[16]{0} parameter(0)
  %g = f32[64]{0} all-gather(%p), replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="7"}
  ROOT %c = (f32[16]{0}, f32[64]{0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%meanwhile (p: f32[16], q: f32[64]) -> (f32[64], f32[64]) {
  %p = f32[16]{0} parameter(0)
  %q = f32[64]{0} parameter(1)
  %g = f32[64]{0} all-gather(%p), replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="7"}
  ROOT %t = (f32[64]{0}, f32[64]{0}) tuple(%q, %g)
}

%done (p: f32[16], q: f32[64]) -> f32[64] {
  %p = f32[16]{0} parameter(0)
  %q = f32[64]{0} parameter(1)
  %g = f32[64]{0} all-gather(%p), replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="7"}
  ROOT %c = f32[64]{0} custom-call(%p, %q, %g), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: f32[16], b: f32[64]) -> f32[64] {
  %a = f32[16]{0} parameter(0)
  %b = f32[64]{0} parameter(1)
  %s = (f32[16]{0}, f32[64]{0}) fusion(%a), kind=kCustom, calls=%start
  %m = (f32[64]{0}, f32[64]{0}) fusion(%a, %b), kind=kOutput, calls=%meanwhile
  ROOT %d = f32[64]{0} fusion(%a, %b), kind=kCustom, calls=%done
}
"""


def test_a_collective_beside_other_work_counts_once():
  (found,) = hlo_costs.analyse(CHAIN).collectives
  assert (found.kind, found.count, found.wire_bytes) == ('all-gather', 1, 256 * 3 / 4)


def test_arrays_on_the_chip_and_views_move_no_hbm():
  text = entry(
    '%x = f32[1024]{0:T(1024)} parameter(0)',
    '%v = f32[8,128]{1,0:T(8,128)} bitcast(%x)',
    '%c = f32[8,128]{1,0:T(8,128)S(3)} copy(%v)',
    'ROOT %n = f32[8,128]{1,0:T(8,128)S(3)} negate(%c)',
  )
  costs = hlo_costs.analyse(text)
  assert costs.hbm_bytes == 4096
  # The copy reads and writes, negate too: four times, wherever the arrays lie.
  assert costs.array_bytes == 4 * 4096


def test_a_fusion_that_reads_one_layer_of_a_stack_counts_that_layer():
  text = (
    'HloModule m\n\n%inside (p0: f32[24,8,128], p1: s32[]) -> f32[8,128] {\n'
    '  %p0 = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)\n'
    '  %p1 = s32[]{:T(128)S(6)} parameter(1)\n'
    '  %s = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1)\n'
    '  ROOT %b = f32[8,128]{1,0:T(8,128)} bitcast(%s)\n}\n\n'
    'ENTRY %main (a: f32[24,8,128], i: s32[]) -> f32[8,128] {\n'
    '  %a = f32[24,8,128]{2,1,0:T(8,128)} parameter(0)\n'
    '  %i = s32[]{:T(128)S(6)} parameter(1)\n'
    '  ROOT %f = f32[8,128]{1,0:T(8,128)} fusion(%a, %i), kind=kLoop, calls=%inside\n}\n'
  )
  assert hlo_costs.analyse(text).hbm_bytes == 2 * 4096


def test_sizes_in_memory_include_the_padding_of_tiles():
  (array,) = hlo.arrays('bf16[4,1024,64]{2,1,0:T(8,128)(2,1)}')
  assert (array.bytes, array.padded_bytes) == (4 * 1024 * 64 * 2, 4 * 1024 * 128 * 2)
  (turned,) = hlo.arrays('bf16[4,1024,64]{1,2,0:T(8,128)(2,1)S(1)}')
  assert (turned.padded_bytes, turned.space) == (turned.bytes, 1)


PROGRAMS = pathlib.Path(__file__).parent / 'programs'


@pytest.mark.parametrize('version', ['0.10', '0.12'])
def test_a_compilers_own_dump_is_read(version):
  """libtpu 0.0.52 for four chips of v4: three layers of two 128 x 128 products, recomputed."""
  text = (PROGRAMS / f'jax_{version}.txt').read_text()
  newer = version == '0.12'
  assert (re.search(r'%[\w.]*param[\w.]*#0', text) is not None) == newer
  assert ('eval_jaxpr' in text, 'closed_call' in text) == (newer, not newer)
  assert ('= s32[]{:T(128)} get-tuple-element(' in text) != newer
  costs = hlo_costs.analyse(text)
  product = 2 * (32 // 4) * 128 * 128
  by_place = {'backward dot_general': 15 * product, 'forward dot_general': 6 * product}
  assert dict(costs.matmul_flops_by_place) == by_place
  wires = {(c.kind, c.group_size): c.wire_bytes for c in costs.collectives}
  assert sum(wires.values()) == 341007
  assert costs.hbm_bytes == pytest.approx(152742, rel=0.02)
  module = hlo.parse(text)
  assert any(
    module.source_line(i, 'aya_train') for c, _ in module.executed() for i in c.instructions
  )
