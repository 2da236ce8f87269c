"""Shows what a data set holds: in lines for a terminal, and as a page with pictures."""

from collections.abc import Iterator, Sequence
from html import escape
from math import log

from training.datasets.summary import Summary

_WORDS = {1: "warning", 2: "of no use", 3: "note"}
_BARS = 60
_WIDTH, _HEIGHT, _MARGIN = 640, 160, 24

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #1b2733 }}
table {{ border-collapse: collapse }} td, th {{ padding: .15rem 1rem .15rem 0; text-align: left }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
li {{ margin: .5rem 0 }} .harm1 b {{ color: #b3261e }} .harm2 b {{ color: #8a5a00 }} code {{ color: #51606f }}
svg {{ width: 100%; height: auto }} rect, path {{ fill: #3566a8 }} text {{ font-size: 12px; fill: #51606f }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def in_lines(summary: Summary, harm: int = 3) -> list[str]:
    """Return a sentence for each thing that was read, then the findings of at least such harm, the worst first.

    Args:
        summary: what was read.
        harm: 1 for the worst alone, 3 for all.
    """
    return [*_figures(summary), *(f"{_WORDS[one.harm]}: {one.said}" for one in summary.findings if one.harm <= harm)]


def in_text(summary: Summary) -> str:
    """Return the whole summary as text, with an example for each finding."""
    lines = _figures(summary)
    for one in summary.findings:
        lines.append(f"{_WORDS[one.harm]}: {one.said}")
        if one.example:
            lines.append(f"    for example {one.example}")
    if not summary.findings:
        lines.append("nothing to warn of")
    return "\n".join(lines)


def in_html(name: str, summary: Summary) -> str:
    """Return the whole summary as an HTML page that needs no other file.

    Args:
        name: of the data set.
        summary: what was read.
    """
    rows = "".join(
        f'<tr><td>{escape(what)}</td><td class="number">{count:,}</td></tr>' for what, count in summary.rows.items()
    )
    kinds = "".join(
        f'<tr><td>{escape(what)}</td><td class="number">{count:,}</td></tr>' for what, count in summary.types.items()
    )
    findings = "".join(
        f'<li class="harm{one.harm}"><b>{_WORDS[one.harm]}</b>: {escape(one.said)}'
        + (f"<br><code>{escape(one.example)}</code>" if one.example else "")
        + "</li>"
        for one in summary.findings
    )
    body = [
        *(f"<p>{escape(line)}</p>" for line in _figures(summary)),
        f"<h2>What to know</h2><ul>{findings or '<li>nothing to warn of</li>'}</ul>",
        f"<h2>Rows by table</h2><table>{rows}</table>",
        f"<h2>Events by type</h2><table>{kinds}</table>",
    ]
    if summary.days:
        body.append(f"<h2>Events over time</h2>{_over_time(summary)}")
    if any(count for _, count in summary.gaps):
        body.append(f"<h2>Days between two days of purchases, by customer</h2>{_gaps(summary)}")
    if summary.buyers:
        body.append(f"<h2>Purchases of each product, the most bought first</h2>{_tail(summary)}")
    return _PAGE.format(title=escape(f"What is in {name}"), body="\n".join(body))


def _figures(summary: Summary) -> list[str]:
    events = sum(summary.types.values())
    span = (
        "no moment" if summary.first is None else f"{summary.first:%Y-%m-%d %H:%M} to {summary.last:%Y-%m-%d %H:%M} UTC"
    )
    kinds = ", ".join(f"{name} {count:,}" for name, count in summary.types.items())
    lines = [
        f"read {', '.join(f'{count:,} {name}' for name, count in summary.rows.items())}",
        f"{events:,} events count ({kinds or 'of no type'}), {span}",
        f"{summary.products:,} products, {summary.customers:,} customers, {summary.returning:,} of whom came back",
    ]
    if summary.named_visits:
        lines.append(f"{summary.named_visits:,} purchases name their visit")
    when = (
        f"at most {summary.visit_pause / 60:,g} minutes after the one before"
        if summary.visit_pause
        else "at one moment"
    )
    lines.append(f"{'other' if summary.named_visits else 'all'} purchases of a customer {when} are of one visit")
    return lines + [f"{count:,} events lie {why} and count nowhere" for why, count in summary.left_out.items()]


def _over_time(summary: Summary) -> str:
    size = -(-len(summary.days) // _BARS)
    groups = [summary.days[start : start + size] for start in range(0, len(summary.days), size)]
    unit = "a day" if size == 1 else f"{size} days"
    return _bars(
        [sum(day.events for day in group) for group in groups],
        [summary.days[0].name, summary.days[-1].name],
        f"events in {unit} with any",
    )


def _gaps(summary: Summary) -> str:
    names = [f"≤{bound}" if bound else "more" for bound, _ in summary.gaps]
    return _bars([count for _, count in summary.gaps], names, "customers")


def _bars(values: Sequence[int], names: Sequence[str], unit: str) -> str:
    most, step = max(*values, 1), (_WIDTH - 2 * _MARGIN) / len(values)
    bars = "".join(
        f'<rect x="{_MARGIN + place * step:.1f}" y="{_HEIGHT - _MARGIN - value / most * (_HEIGHT - 2 * _MARGIN):.1f}" '
        f'width="{max(step - 1, 0.5):.1f}" height="{value / most * (_HEIGHT - 2 * _MARGIN):.1f}"/>'
        for place, value in enumerate(values)
    )
    return _picture(bars + "".join(_names(names, by_bar=len(names) == len(values))), f"{unit}, at most {most:,}")


def _names(names: Sequence[str], *, by_bar: bool) -> Iterator[str]:
    wide = _WIDTH - 2 * _MARGIN
    for place, name in enumerate(names):
        share = (place + 0.5) / len(names) if by_bar else place / max(len(names) - 1, 1)
        anchor = "middle" if by_bar else ("start", "end")[min(place, 1)]
        at = f'x="{_MARGIN + share * wide:.1f}" y="{_HEIGHT - 6}"'
        yield f'<text {at} text-anchor="{anchor}">{escape(name)}</text>'


def _tail(summary: Summary) -> str:
    last, most = summary.buyers[-1][0], summary.buyers[0][1]
    wide, high = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    # Both axes are logarithmic: the first of a long list has thousands of times as many as most others.
    points = [(log(place) / max(log(last), 1), log(count + 1) / log(most + 1)) for place, count in summary.buyers]
    line = " ".join(f"L{_MARGIN + x * wide:.1f} {_HEIGHT - _MARGIN - y * high:.1f}" for x, y in points)
    area = f'<path d="M{_MARGIN} {_HEIGHT - _MARGIN} {line} L{_MARGIN + wide} {_HEIGHT - _MARGIN} Z"/>'
    names = "".join(_names(["1", f"{last:,} products"], by_bar=False))
    return _picture(area + names, f"purchases of a product, at most {most:,}; both axes logarithmic")


def _picture(drawn: str, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{drawn}<text x="{_MARGIN}" y="14">{escape(title)}</text></svg>'
    )
