"""The candidates of a search as one page that needs no network: what each costs, and what it still gets right."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from tasks.candidate import Candidate, nearest, pareto_front
from tasks.candidate_table import COLUMNS, remarks
from tasks.core.machine import Machine
from tasks.core.recipe import LOWER_IS_BETTER, Limits, Metric, Objective
from tasks.page_style import STYLE

_STYLE: Final = """
:root { --front: light-dark(#1f5fa8, #7fb2ee); --chosen: var(--good); --out: light-dark(#a5adba, #566072); --limit: var(--bad) }
main { max-width: 96rem } b.chosen { color: var(--chosen) } b.none { color: var(--bad) }
.tabs { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1.25rem 0 .5rem }
.tabs button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: .25rem .9rem; cursor: pointer } .tabs button[aria-pressed=true] { border-color: var(--front); color: var(--front); font-weight: 600 }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .5rem }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif } svg text { fill: var(--text) } svg .soft { fill: var(--soft) }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; color: var(--soft); font-size: .85rem; margin: .5rem .25rem }
.key i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .85rem }
th, td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) } tr:last-child td { border: 0 }
th { color: var(--soft); font-weight: 500 } th:first-child, td:first-child, td.why, th.why { text-align: left } td.why { white-space: normal; min-width: 12rem }
th[title] { cursor: help; text-decoration: underline dotted }
tr.chosen td { font-weight: 600 } tr.out td { color: var(--soft) } tr.lit td { background: color-mix(in srgb, var(--front) 12%, transparent) }
"""

_SCRIPT: Final = """
{
const {points, axes, worst, metric, floor} = JSON.parse(document.getElementById('points').textContent)
const figure = document.querySelector('figure'), width = 960, height = 420, left = 64, right = 24, top = 24, bottom = 48
const make = (name, values, text) => { const node = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const key in values) node.setAttribute(key, values[key]); if (text !== undefined) node.textContent = text; return node }
const color = point => `var(--${point.chosen ? 'chosen' : point.misses.length ? 'out' : 'front'})`
const number = value => value >= 1000 ? Math.round(value).toLocaleString('en') : Number(value.toPrecision(3)).toString()
function scale(values, from, to, even) {
  let low = Math.min(...values), high = Math.max(...values)
  const logarithmic = !even && low > 0 && high / low > 4, way = logarithmic ? Math.log : value => value
  const pad = (way(high) - way(low)) * .08 || Math.abs(way(high)) * .05 || 1, start = way(low) - pad, end = way(high) + pad
  const place = value => from + (way(value) - start) / (end - start) * (to - from), back = logarithmic ? Math.exp : value => value
  return {place, ticks: [0, 1, 2, 3, 4, 5].map(step => back(start + (end - start) * (step + .5) / 6))}
}
function draw(name) {
  const axis = axes[name], svg = make('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${metric} by ${axis.title}`})
  const xs = points.map(point => point.x[name]), ys = points.map(point => point.y)
  const x = scale(axis.limit === null ? xs : [...xs, axis.limit], left, width - right)
  const y = worst ? scale(floor === null ? ys : [...ys, floor], top, height - bottom, true) : scale(floor === null ? ys : [...ys, floor], height - bottom, top, true)
  for (const tick of x.ticks) svg.append(make('line', {x1: x.place(tick), x2: x.place(tick), y1: top, y2: height - bottom, stroke: 'var(--line)'}),
    make('text', {x: x.place(tick), y: height - bottom + 18, 'text-anchor': 'middle', class: 'soft'}, number(tick)))
  for (const tick of y.ticks) svg.append(make('line', {x1: left, x2: width - right, y1: y.place(tick), y2: y.place(tick), stroke: 'var(--line)'}),
    make('text', {x: left - 8, y: y.place(tick) + 4, 'text-anchor': 'end', class: 'soft'}, tick.toFixed(3)))
  svg.append(make('text', {x: width - right, y: height - 8, 'text-anchor': 'end', class: 'soft'}, axis.title), make('text', {x: left, y: 14, class: 'soft'}, metric))
  const dashed = {stroke: 'var(--limit)', 'stroke-dasharray': '5 4'}
  if (axis.limit !== null) svg.append(make('line', {x1: x.place(axis.limit), x2: x.place(axis.limit), y1: top, y2: height - bottom, ...dashed}))
  if (floor !== null) svg.append(make('line', {x1: left, x2: width - right, y1: y.place(floor), y2: y.place(floor), ...dashed}))
  const front = points.filter(point => point.front.includes(name)).sort((a, b) => a.x[name] - b.x[name])
  svg.append(make('polyline', {points: front.map(point => `${x.place(point.x[name])},${y.place(point.y)}`).join(' '), fill: 'none', stroke: 'var(--front)', 'stroke-opacity': .45}))
  const taken = points.map(point => [x.place(point.x[name]) - 8, x.place(point.x[name]) + 8, y.place(point.y) + 4])
  for (const point of points) {
    const cx = x.place(point.x[name]), cy = y.place(point.y), dot = make('circle', {cx, cy, r: point.chosen ? 8 : 6, fill: color(point), tabindex: 0})
    dot.append(make('title', {}, [point.name, ...point.lines, ...point.misses].join('\\n')))
    const row = document.getElementById(`row-${point.index}`)
    for (const event of ['mouseenter', 'focus']) dot.addEventListener(event, () => row.classList.add('lit'))
    for (const event of ['mouseleave', 'blur']) dot.addEventListener(event, () => row.classList.remove('lit'))
    svg.append(dot)
    const wide = point.name.length * 7, away = [...Array(20)].flatMap((_, step) => [22 + 14 * step, -25 - 14 * step])
    // Above the dot, else right or left of it, else as near as there is room for the name.
    const places = [[-wide / 2, -11], [12, 4], [-12 - wide, 4], ...away.map(dy => [-wide / 2, dy])]
      .map(([dx, dy]) => [Math.max(left + 4, Math.min(cx + dx, width - right - wide)), cy + dy])
    const free = ([start, line]) => line > top + 8 && line < height - bottom
      && !taken.some(([from, to, other]) => start < to && from < start + wide && Math.abs(other - line) < 14)
    const [start, line] = places.find(free) ?? places[0]
    taken.push([start, start + wide, line])
    svg.append(make('text', {x: start + wide / 2, y: line, 'text-anchor': 'middle', class: point.front.includes(name) || point.chosen ? '' : 'soft'}, point.name))
  }
  figure.replaceChildren(svg)
  for (const button of document.querySelectorAll('.tabs button')) button.setAttribute('aria-pressed', button.value === name)
}
for (const button of document.querySelectorAll('.tabs button')) button.addEventListener('click', () => draw(button.value))
draw(document.querySelector('.tabs button[aria-pressed=true]').value)
}
"""

PLOTTED: Final[dict[Objective, tuple[Callable[[Candidate], float], str]]] = {
    "latency": (lambda candidate: candidate.latency_ms, "ms for one row, median"),
    "throughput": (lambda candidate: candidate.rows_per_second, "rows a second, 32 in a request"),
    "size": (lambda candidate: candidate.bytes / 1e3, "file size, kB"),
    "memory": (lambda candidate: candidate.memory_mb, "memory, MB"),
}
"""What is plotted for each objective, and what its axis says."""
_VERBS: Final[dict[Objective, str]] = {
    "latency": "the fastest",
    "throughput": "the one with the highest throughput",
    "size": "the smallest",
    "memory": "the one with the least memory",
}


@dataclass(frozen=True)
class Picture:
    """A finished search: what was asked for, and what was found; `chosen` is None where nothing is within the limits."""

    name: str
    metric: Metric
    objective: Objective
    limits: Limits
    candidates: Sequence[Candidate]
    chosen: str | None
    failed: Mapping[str, str]
    machine: Machine

    @property
    def title(self) -> str:
        return f"{self.name}: {f'{self.chosen} was chosen' if self.chosen else 'nothing is within the limits'}"


def page(picture: Picture) -> str:
    """The whole page."""
    tabs = "".join(
        f'<button value="{name}" aria-pressed="{str(name == picture.objective).lower()}">{escape(title)}</button>'
        for name, (_, title) in PLOTTED.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(picture.title)}</title>
<style>{STYLE}{_STYLE}</style>
</head>
<body><main>
<p class="soft">Compression of the model</p>
<h1>{escape(picture.name)}</h1>
<p>{_ending(picture)}</p>
<p class="soft">Measured on {escape(picture.machine.processor)}, {picture.machine.cores} cores. A figure from elsewhere may differ.</p>
<div class="tabs" role="group" aria-label="What a candidate costs">{tabs}</div>
<figure><p class="soft">The plot needs JavaScript; the table below has all of it.</p></figure>
<p class="key"><span><i style="background:var(--chosen)"></i>chosen</span><span><i style="background:var(--front)"></i>within the limits</span>
<span><i style="background:var(--out)"></i>breaks a limit</span><span style="color:var(--limit)">- - limit</span><span>line: the Pareto front, on which nothing is better in both</span></p>
<h2>Candidates</h2>
<p class="soft">Each head says what it means when it is pointed at.</p>
{_table(picture)}
{_failures(picture.failed)}
<script type="application/json" id="points">{_points(picture)}</script>
<script>{_SCRIPT}</script>
</main></body>
</html>
"""


def _ending(picture: Picture) -> str:
    """What was chosen and why, or how far the nearest is from the limits."""
    chosen = next((candidate for candidate in picture.candidates if candidate.name == picture.chosen), None)
    if chosen is None:
        return f'<b class="none">Infeasible</b>: {escape(nearest(picture.candidates))}. Nothing was registered.'
    metric = picture.metric.replace("_", " ")
    return (
        f'<b class="chosen">{escape(chosen.name)}</b> was chosen: {_VERBS[picture.objective]} of those within the limits, at '
        f"{chosen.size_ratio:.2f} × fp32's size and {chosen.latency_ms:.3g} ms a row; validation {metric} {chosen.validation:.4f}, "
        f"a drop of {chosen.validation_drop:+.4f}."
    )


def _points(picture: Picture) -> str:
    fronts = {objective: pareto_front(objective, picture.candidates) for objective in PLOTTED}
    fp32 = next(candidate for candidate in picture.candidates if candidate.name == "fp32")
    worse = 1 if picture.metric in LOWER_IS_BETTER else -1
    limits, drop = picture.limits, picture.limits.metric_drop
    size = limits.size_ratio and limits.size_ratio * fp32.bytes / 1e3
    values: dict[str, Any] = {
        "metric": f"validation {picture.metric.replace('_', ' ')}",
        "worst": picture.metric in LOWER_IS_BETTER,
        "floor": None if drop is None else fp32.validation + worse * drop,
        "axes": {
            name: {"title": title, "limit": {"latency": limits.latency_ms, "size": size, "memory": limits.memory_mb}.get(name)}
            for name, (_, title) in PLOTTED.items()
        },
        "points": [
            {
                "index": index,
                "name": candidate.name,
                "chosen": candidate.name == picture.chosen,
                "front": [objective for objective in PLOTTED if candidate.name in fronts[objective]],
                "x": {objective: cost(candidate) for objective, (cost, _) in PLOTTED.items()},
                "y": candidate.validation,
                "lines": [f"{candidate.latency_ms:.3g} ms a row", f"{candidate.bytes / 1e3:,.0f} kB"],
                "misses": [str(miss) for miss in candidate.misses],
            }
            for index, candidate in enumerate(picture.candidates)
        ],
    }
    # Within a script element nothing but its end tag is markup.
    return json.dumps(values).replace("</", "<\\/")


def _table(picture: Picture) -> str:
    heads = "".join(f'<th title="{escape(column.means)}">{escape(column.head)}</th>' for column in COLUMNS)
    rows = "".join(_row(index, candidate, picture.chosen) for index, candidate in enumerate(picture.candidates))
    return (
        f'<div class="scroll"><table><thead><tr><th>variant</th><th class="why">remarks</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(index: int, candidate: Candidate, chosen: str | None) -> str:
    kind = "chosen" if candidate.name == chosen else "out" if candidate.misses else ""
    name = f'<td>{escape(candidate.name)}</td><td class="why">{escape(remarks(candidate))}</td>'
    cells = "".join(f"<td>{escape(column.text(candidate))}</td>" for column in COLUMNS)
    return f'<tr id="row-{index}" class="{kind}">{name}{cells}</tr>'


def _failures(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    items = "".join(f"<tr><td>{escape(name)}</td><td class='why'>{escape(reason)}</td></tr>" for name, reason in failed.items())
    return f'<h2>Not made</h2><div class="scroll"><table><tbody>{items}</tbody></table></div>'
