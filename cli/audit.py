"""`k2 audit`: do the stores hold exactly what the raw log says?"""

from __future__ import annotations

import time
from typing import Any, Final

import orjson
import typer

from cli.arguments import utc
from cli.logs import configure_logs
from cli.reading import STORES, Reading
from cli.screen import meter, print_table, say
from config.settings import Settings, load_settings
from maintenance.report import Line, Report
from market.errors import ConfigError

DIFFERENCES_FOUND: Final = 1
_HEADINGS: Final = ("exchange", "hour", "layer", ">raw", ">warm", ">cold", ">differences")
_SHOWN_EXAMPLES: Final = 20


def audit(exchange: str | None, *, as_json: bool) -> None:
    """Print what was compared, and every difference's place.

    Raises:
        typer.Exit: with 1 when there are differences.
    """
    configure_logs()
    report = audit_all(load_settings(), exchange)
    for note in report.notes:
        say(f"note: {note}")
    if as_json:
        typer.echo(orjson.dumps([_object(line) for line in report.lines], option=orjson.OPT_INDENT_2))
    else:
        _print(report)
    if report.differences:
        raise typer.Exit(DIFFERENCES_FOUND)


def audit_all(settings: Settings, exchange: str | None = None) -> Report:
    """Audit one exchange, or all that have a raw topic.

    Raises:
        ConfigError: the exchange is unknown or has no raw topic.
        Refused: a table was filled from another topic.
    """
    report = Report()
    with Reading(settings) as reading:
        names = reading.with_topics()
        if exchange is not None:
            name = reading.wanted(exchange, None).exchange
            if name not in names:
                raise ConfigError(f"{name} has no raw topic in {settings.topics_url}: there is nothing to audit")
            names = (str(name),)
        if not names:
            report.notes.append(f"no raw topic in {settings.topics_url} yet: there is nothing to audit")
            return report
        from connectors.venues.registry import venue
        from dataflows.stages import VenueSetup
        from maintenance.audit import audit_exchange

        stores = [reading.opened(name) for name in STORES]
        for name in names:
            setup = None
            if name in reading.listed:
                setup = VenueSetup(venue(name), reading.listed[name], settings.rules(venue(name).contiguous_ids))
            with meter(name) as shown:
                found = audit_exchange(name, setup, reading.log, stores, time.time_ns() // 1_000, shown.step)
            report.lines += found.lines
            report.examples += found.examples
            report.notes += found.notes
    return report


def _object(line: Line) -> dict[str, Any]:
    return {
        "exchange": line.exchange,
        "hour": utc(line.hour_us).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "layer": line.layer,
        "raw": line.raw,
        "warm": line.warm,
        "cold": line.cold,
        "differences": line.differences,
    }


def _print(report: Report) -> None:
    if report.lines:
        lines = [[*_object(line).values()] for line in report.lines]
        for line in lines:
            line[1] = str(line[1])[:16].replace("T", " ")
        print_table(_HEADINGS, lines)
    for example in report.examples[:_SHOWN_EXAMPLES]:
        key = ", ".join(f"{name} {value}" for name, value in example.key.items())
        typer.echo(f"{example.exchange} {example.table} ({example.store}): {example.difference.value}: {key}")
    if len(report.examples) > _SHOWN_EXAMPLES:
        typer.echo(f"… and {len(report.examples) - _SHOWN_EXAMPLES} more examples")
    if not report.lines:  # no table of either store was looked at: that is no clean bill
        typer.echo("nothing was compared")
    else:
        typer.echo(f"{report.differences:,} differences" if report.differences else "no differences")
