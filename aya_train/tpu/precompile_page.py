"""A precompiled step for the eye: a table for the terminal, JSON for programs, a plotted page."""

import io
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe
from etils import epath
from matplotlib import figure

from aya_train.tasks import storage
from aya_train.tpu import hlo_schedule, precompile, roofline, topologies

GIB = topologies.GIB


def rows(result: precompile.Result) -> list[tuple[str, str]]:
  """Names and values of the figures, most important first."""
  usable = result.usable_hbm / GIB
  peak = 'unknown' if result.peak_hbm is None else f'{result.peak_hbm / GIB:.2f} GiB'
  overflow = result.overflow
  too_much = f': {result.excess / GIB:.2f} GiB too much' if result.excess else ''
  out = [
    ('slice', f'{result.slice}: {result.num_chips} chips, mesh {dict(result.mesh)}'),
    ('peak HBM', f'{peak} of {usable:.2f} GiB usable{too_much}'),
  ]
  if overflow is not None and overflow.on_chip:
    out.append(('on the chip', f'{overflow}; HBM is not what is short'))
  out += [(f'  {kind}', f'{size / GIB:.2f} GiB') for kind, size in result.hbm_by_kind.items()]
  costs, estimate = result.costs, result.estimate
  if costs is not None and estimate is not None:
    share = costs.matmul_flops / estimate.model_flops
    out += [
      ('matmul FLOPs', f"{costs.matmul_flops:.3e}, {share:.3f} of the model's own"),
      ('HBM traffic', f'{costs.hbm_bytes / 1e12:.3f} TB: arrays that lie in HBM, a lower bound'),
      ('  all arrays', f'{costs.array_bytes / 1e12:.3f} TB: those kept on the chip counted too'),
      ('on the wire', f'{costs.wire_bytes / 1e9:.1f} GB'),
      *(
        (
          f'  {c.kind} of {c.group_size}',
          f'{c.wire_bytes / 1e9:.2f} GB in {c.count:.0f}',
        )
        for c in costs.collectives
      ),
      (
        'time at the roof',
        f'compute {estimate.compute_seconds:.3f} s, '
        f'HBM {estimate.hbm_seconds:.3f} s, interconnect {estimate.wire_seconds:.3f} s',
      ),
      ('step at least', f'{estimate.step_seconds:.3f} s'),
      *_schedule_rows(result.schedule, estimate),
      ('MFU at most', f'{100 * estimate.mfu_bound:.1f} %'),
      (
        '  all arrays',
        f'{100 * estimate.strict_mfu_bound:.1f} %, HBM {estimate.array_seconds:.3f} s',
      ),
      ('tokens/s at most', f'{estimate.tokens_per_second:,.0f}'),
      ('rows/s at most', f'{estimate.rows_per_second:,.1f}'),
      (
        f'{estimate.steps:,} steps',
        f'{estimate.hours:,.1f} h, {estimate.chip_hours:,.0f} chip-hours, '
        f'about {estimate.dollars:,.0f} dollars at list price',
      ),
    ]
  out.append(
    ('compiled in', f'{result.compile_seconds:.0f} s, {result.compiler_rss / GIB:.1f} GiB')
  )
  return out


def _schedule_rows(
  schedule: hlo_schedule.Playback | None, estimate: roofline.StepEstimate
) -> list[tuple[str, str]]:
  if schedule is None:
    return []
  mfu = estimate.mfu_bound * estimate.step_seconds / schedule.seconds
  return [
    (
      'as scheduled',
      f'{schedule.seconds:.3f} s, MFU {100 * mfu:.1f} %: each overlaps with what stands beside it',
    ),
    (
      '  waiting',
      f'{schedule.wire_waits:.3f} of {schedule.wire_seconds:.3f} s for the interconnect, '
      f'{schedule.copy_waits:.3f} s for copies from HBM',
    ),
  ]


def text(result: precompile.Result) -> str:
  """The figures as aligned lines, and what to do when the program does not fit."""
  width = max(len(name) for name, _ in rows(result)) + 2
  lines = [f'{name:{width}}{value}' for name, value in rows(result)]
  if not result.fits:
    excess = f' by {result.excess / GIB:.2f} GiB' if result.excess else ''
    if result.overflow is not None and result.overflow.on_chip:
      excess = f' in {result.overflow.space}, which is on the chip: {result.overflow}'
    lines.append(f'It does not fit{excess}. What would help:')
    lines += [f'  {line}' for line in result.suggestions]
  return '\n'.join(lines)


def write(result: precompile.Result, output_dir: epath.PathLike) -> list[epath.Path]:
  """Writes precompile_<slice>.json and .html."""
  folder = epath.Path(output_dir)
  folder.mkdir(parents=True, exist_ok=True)
  paths = [folder / f'precompile_{result.slice}.{kind}' for kind in ('json', 'html')]
  text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
  storage.write_atomically(paths[0], text)
  storage.write_atomically(paths[1], page(result))
  return paths


def page(result: precompile.Result) -> str:
  """The HTML page."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('aya_train.tpu', 'templates'), autoescape=True, trim_blocks=True
  )
  gib = {kind: size / GIB for kind, size in result.hbm_by_kind.items()}
  gib['together, at the peak'] = (result.peak_hbm or 0) / GIB
  plots = [('HBM by kind, GiB', bars(gib, result.usable_hbm / GIB))]
  if result.costs is not None and result.estimate is not None:
    e, costs = result.estimate, result.costs
    roofs = {
      'compute': e.compute_seconds,
      'HBM': e.hbm_seconds,
      'HBM, all arrays': e.array_seconds,
      'interconnect': e.wire_seconds,
    }
    if result.schedule is not None:
      roofs['all, as scheduled'] = result.schedule.seconds
      roofs['waiting for the interconnect'] = result.schedule.wire_waits
    wire = {f'{c.kind} of {c.group_size}': c.wire_bytes / 1e9 for c in costs.collectives[:8]}
    flops = _first(costs.matmul_flops_by_place, 1e12)
    traffic = _first(costs.hbm_bytes_by_place, 1e9)
    plots += [
      ('Seconds of a step: each resource alone, and as scheduled', bars(roofs)),
      ('On the wire, GB', bars(wire)),
      ('Matmul TFLOPs by place', bars(flops)),
      ('HBM traffic by place, GB', bars(traffic)),
    ]
  return environment.get_template('precompile.html.jinja').render(
    result=result, rows=rows(result), plots=plots, gib=GIB
  )


def _first(values: Mapping[str, float], unit: float, count: int = 12) -> dict[str, float]:
  return {name: value / unit for name, value in list(values.items())[:count]}


def bars(values: Mapping[str, float], limit: float | None = None) -> markupsafe.Markup:
  """Horizontal bars as SVG in the page's colours; `limit` draws a line."""
  names, ink = list(values), '#010203'
  fig = figure.Figure(figsize=(6.5, 0.6 + 0.26 * max(len(names), 1)), layout='constrained')
  ax = fig.subplots()
  drawn: Any = ax.barh(names, list(values.values()), color='#2a78d6', height=0.7)
  ax.bar_label(drawn, fmt='%.3g', padding=3, fontsize=8, color=ink)
  if limit is not None:
    ax.axvline(limit, color='#d9822b', linewidth=2)
  ax.invert_yaxis()
  ax.margins(x=0.12)
  ax.spines[['top', 'right', 'bottom']].set_visible(False)
  ax.tick_params(length=0, labelsize=8, colors=ink)
  buffer = io.StringIO()
  fig.savefig(buffer, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  svg = buffer.getvalue()
  return markupsafe.Markup(svg[svg.index('<svg') :].replace(ink, 'currentColor'))
