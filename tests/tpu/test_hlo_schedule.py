"""Playing compiled programs back in the order in which they are scheduled."""

import dataclasses

import pytest

from aya_train.tpu import hlo_costs, hlo_schedule, topologies

# A product below takes 16 seconds, a gather of the 8 bytes of w by 2 chips 4 seconds.
CHIP = dataclasses.replace(topologies.CHIPS['v4'], flops=1.0, hbm_bandwidth=1e9, ici_bandwidth=1.0)
GATHER = 'replica_groups={{0,1}}, dimensions={0}'
DOT = 'lhs_contracting_dims={1}, rhs_contracting_dims={0}'


def program(*lines, before=''):
  return (
    f'HloModule m, is_scheduled=true\n\n{before}ENTRY %main (a: f32[2,2]) -> f32[2,2] {{\n'
    '  %a = f32[2,2]{1,0} parameter(0)\n  %w = f32[1]{0} constant({...})\n  '
    + '\n  '.join(lines)
    + '\n}\n'
  )


def product(name, of='%a', root=''):
  return f'{root}%{name} = f32[2,2]{{1,0}} dot(%a, {of}), {DOT}'


def started(name):
  return f'%{name} = (f32[1]{{0}}, f32[2]{{0}}) all-gather-start(%w), {GATHER}'


def ended(name):
  return f'%{name}.done = f32[2]{{0}} all-gather-done(%{name})'


def played(*lines, chip=CHIP, before=''):
  return hlo_schedule.play(program(*lines, before=before), chip)


def test_nothing_hides_a_collective_that_blocks():
  found = played(f'%g = f32[2]{{0}} all-gather(%w), {GATHER}', product('y', root='ROOT '))
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((20, 4, 4))


def test_what_stands_between_start_and_end_hides_a_collective():
  found = played(started('g'), product('y', root='ROOT '), ended('g'))
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((16, 4, 0))
  late = played(product('y', root='ROOT '), started('g'), ended('g'))
  assert (late.seconds, late.wire_waits) == pytest.approx((20, 4))


def test_what_does_not_hide_is_waited_for():
  slow = dataclasses.replace(CHIP, ici_bandwidth=0.2)
  found = played(started('g'), product('y', root='ROOT '), ended('g'), chip=slow)
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((20, 20, 4))


def test_collectives_pass_the_wire_one_at_a_time():
  slow = dataclasses.replace(CHIP, ici_bandwidth=0.4)
  lines = [started('g'), started('h'), product('y', root='ROOT '), ended('g'), ended('h')]
  found = played(*lines, chip=slow)
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((20, 20, 4))


def test_a_collective_that_is_never_waited_for_ends_the_program():
  slow = dataclasses.replace(CHIP, ici_bandwidth=0.1)
  found = played(started('g'), product('y', root='ROOT '), chip=slow)
  assert (found.seconds, found.wire_waits) == pytest.approx((40, 24))


COPY = '%c = (f32[4]{0:S(1)}, f32[4]{0}, u32[]{:S(2)}) copy-start(%v)'


@pytest.mark.parametrize(('bandwidth', 'waited'), [(8.0, 0), (4.0, 0), (3.2, 4), (1.0, 16)])
def test_copies_have_what_other_traffic_leaves_of_hbm(bandwidth, waited):
  """16 bytes are copied out of HBM beside a product that moves 48 bytes itself."""
  chip = dataclasses.replace(CHIP, hbm_bandwidth=bandwidth)
  lines = ['%v = f32[4]{0} constant({...})', COPY, product('y', root='ROOT ')]
  found = played(*lines, '%d = f32[4]{0:S(1)} copy-done(%c)', chip=chip)
  assert found.copy_waits == pytest.approx(waited)
  assert found.seconds == pytest.approx(max(16, 48 / bandwidth) + waited)


LOOP = """%body (p: (s32[], f32[2,2])) -> (s32[], f32[2,2]) {
  %p = (s32[], f32[2,2]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %a = f32[2,2]{1,0} get-tuple-element(%p), index=1
  %w = f32[1]{0} constant({...})
  GATHER
  %y = f32[2,2]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  END
  ROOT %t = (s32[], f32[2,2]{1,0}) tuple(%i, %y)
}

%condition (p: (s32[], f32[2,2])) -> pred[] {
  %p = (s32[], f32[2,2]{1,0}) parameter(0)
  ROOT %lt = pred[] constant(true)
}

"""


def test_a_loop_takes_its_body_as_often_as_it_runs():
  before = LOOP.replace('GATHER', started('g')).replace('END', ended('g'))
  loop = 'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"24"}}'
  found = played(
    '%n = s32[] constant(0)',
    '%s = (s32[], f32[2,2]{1,0}) tuple(%n, %a)',
    f'ROOT %l = (s32[], f32[2,2]{{1,0}}) while(%s), {loop}',
    before=before,
  )
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((24 * 16, 96, 0))


def chained(root):
  target = f'custom_call_target="AsyncCollective{root}"'
  return f"""%chain.{root} (p: f32[2,2], w: f32[1]) -> f32[2,2] {{
  %p = f32[2,2]{{1,0}} parameter(0)
  %w = f32[1]{{0}} parameter(1)
  %g = f32[2]{{0}} all-gather(%w), {GATHER}, frontend_attributes={{chain_id="7"}}
  %y = f32[2,2]{{1,0}} dot(%p, %p), {DOT}
  ROOT %r = f32[2,2]{{1,0}} custom-call(%y, %g), {target}
}}

"""


def test_a_chain_of_fusions_hides_its_collective_from_the_first_on():
  """As v5e has it: the collective stands in each of them, and counts in the last."""
  names = ('Start', 'Step', 'Done')
  lines = [
    f'{"ROOT " * (n == "Done")}%f.{n} = f32[2,2]{{1,0}} fusion(%a, %w), kind=kOutput, '
    f'calls=%chain.{n}'
    for n in names
  ]
  slow = dataclasses.replace(CHIP, ici_bandwidth=4 / 60)
  found = played(*lines, chip=slow, before=''.join(map(chained, names)))
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((60, 60, 12))


def test_the_total_lies_between_the_roofs_and_their_sum():
  lines = [started('g'), product('x'), ended('g'), product('y', '%x', 'ROOT ')]
  costs = hlo_costs.analyse(program(*lines))
  roofs = [costs.matmul_flops, costs.hbm_bytes / 1e9, costs.wire_bytes]
  assert max(roofs) <= played(*lines).seconds <= sum(roofs)


@pytest.mark.parametrize('text', ['', 'HloModule m\n'])
def test_what_is_no_program_is_refused(text):
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo_schedule.play(text, CHIP)


ON_SPARSE_CORE = """%called (p: f32[1]) -> f32[2] {
  %p = f32[1]{0} parameter(0)
  ROOT %g = f32[2]{0} all-gather(%p), replica_groups={{0,1}}, dimensions={0}
}

%beside (p: f32[1]) -> f32[2] {
  %p = f32[1]{0} parameter(0)
  ROOT %c = f32[2]{0} custom-call(%p), custom_call_target="x", called_computations={%called}
}

"""


def test_a_collective_on_the_sparse_core_is_one():
  """As v5p and v6e have it: in a kernel, in a computation of its own that runs beside others."""
  lines = [
    '%s = ((f32[1]{0}), f32[2]{0}, u32[]{:S(2)}) async-start(%w), calls=%beside',
    product('y', root='ROOT '),
    '%d = f32[2]{0} async-done(%s)',
  ]
  [counted] = hlo_costs.analyse(program(*lines, before=ON_SPARSE_CORE)).collectives
  assert (counted.kind, counted.group_size, counted.count) == ('all-gather', 2, 1)
  found = played(*lines, before=ON_SPARSE_CORE)
  assert (found.seconds, found.wire_seconds, found.wire_waits) == pytest.approx((16, 4, 0))
  late = played(lines[1], lines[0], lines[2], before=ON_SPARSE_CORE)
  assert (late.seconds, late.wire_waits) == pytest.approx((20, 4))
