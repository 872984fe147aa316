"""The validation report as one page that needs no network: Great Expectations' own takes its styles from one."""

import re
from html import escape
from typing import Final

from tasks.core.dataset import Dataset
from tasks.core.report import Check, Report
from tasks.page_style import STYLE

_STYLE: Final = """
:root { --bad-ground: light-dark(#fdf0ee, #33191a) } main { max-width: 64rem }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, monospace }
.verdict { display: inline-block; margin: 1rem 0 .5rem; padding: .3rem .8rem; border-radius: 99px; font-weight: 600; border: 1px solid }
.good { color: var(--good) } .bad { color: var(--bad) }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1rem }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem 1rem; min-width: 7rem }
.figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums } .figures span { color: var(--soft); font-size: .85rem }
.check { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem 1rem; margin: .5rem 0;
  display: grid; grid-template-columns: 1.5rem minmax(0, 1fr) auto; gap: 0 .5rem; overflow-wrap: anywhere }
.check.bad-card { background: var(--bad-ground); border-color: var(--bad) }
.check ul { grid-column: 2 / -1; margin: .4rem 0 0; padding-left: 1.1rem; color: var(--text) } .check li { margin: .1rem 0 }
.check .count { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
"""


def page(report: Report, dataset: Dataset) -> str:
    """The whole page."""
    verdict = "all checks hold" if report.success else f"{len(report.failed)} of {len(report.checks)} checks fail"
    passed = [check for check in report.checks if check.success]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.dataset)}: {verdict}</title>
<style>{STYLE}{_STYLE}</style>
</head>
<body><main>
<p class="soft">Validation of the dataset</p>
<h1>{escape(report.dataset)}</h1>
<p class="soft">{escape(dataset.description)}</p>
<p class="verdict {"good" if report.success else "bad"}">{"✓" if report.success else "✗"} {verdict}</p>
{_figures(report)}
{_section("Failed", report.failed)}
{_section("Passed", passed)}
<h2>Where to change this</h2>
<p class="soft">Mend the data, or edit <code>{escape(report.file)}</code> where an expectation is wrong: its <code>columns</code> say what
a value may be, its <code>expectations</code> what must hold of all rows.</p>
</main></body>
</html>
"""


def _figures(report: Report) -> str:
    names = {"all": "rows"} | {part: f"{part} rows" for part in report.rows if part != "all"}
    boxes = [f"<div><b>{rows:,}</b><span>{escape(names[part])}</span></div>" for part, rows in report.rows.items()]
    boxes.append(f"<div><b>{len(report.checks)}</b><span>checks</span></div>")
    return f'<div class="figures">{"".join(boxes)}</div>'


def _section(title: str, checks: tuple[Check, ...] | list[Check]) -> str:
    return f"<h2>{title}</h2>\n" + "\n".join(map(_card, checks)) if checks else ""


def _card(check: Check) -> str:
    mark = '<span class="good">✓</span>' if check.success else '<span class="bad">✗</span>'
    column = f"<b>{escape(check.column)}</b> " if check.column else ""
    name = escape(check.expectation).replace("_", "_<wbr>")
    count = f"{check.unexpected:,} found" if check.unexpected else ""
    examples = "".join(f"<li><code>{escape(example)}</code></li>" for example in check.examples)
    return (
        f'<div class="check{"" if check.success else " bad-card"}">{mark}<div>{column}<code>{name}</code>'
        f'<p class="soft">{_prose(check.detail)}</p></div><span class="count {"soft" if check.success else "bad"}">{count}</span>'
        f"{f'<ul>{examples}</ul>' if examples else ''}</div>"
    )


def _prose(text: str) -> str:
    """Text in which `backticks` mark code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
