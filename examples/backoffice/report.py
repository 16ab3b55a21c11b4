"""From sales files to the year's report, with pandas."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from examples.backoffice.files import replacing


def month_totals(file: Path) -> dict[str, Any]:
    """The totals of one month's file: plain values, fit for a message."""
    sales = pd.read_csv(file)
    sales["revenue"] = sales["quantity"] * sales["unit_price"]
    return {
        "month": file.stem,
        "units": int(sales["quantity"].sum()),
        "revenue": round(float(sales["revenue"].sum()), 2),
        "regions": sales.groupby("region")["revenue"].sum().round(2).to_dict(),
        "products": sales.groupby("product")["revenue"].sum().round(2).to_dict(),
    }


def write_year(months: Iterable[dict[str, Any]], folder: Path) -> Path:
    """Write sales.csv (one row a month) and sales.md (for people); returns the latter."""
    months = sorted(months, key=lambda month: month["month"])
    table = pd.DataFrame(months)[["month", "units", "revenue"]]
    with replacing(folder / "sales.csv") as draft:
        table.to_csv(draft, index=False, float_format="%.2f")
    with replacing(folder / "sales.md") as draft:
        draft.write_text(render(table, months), encoding="utf-8")
    return folder / "sales.md"


def render(table: pd.DataFrame, months: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    best = table.loc[table["revenue"].idxmax()]
    lines = [
        "# Sales of the year",
        "",
        f"Revenue {table['revenue'].sum():,.2f} EUR with {table['units'].sum():,} units;"
        f" best month {best['month']} with {best['revenue']:,.2f} EUR.",
        "",
        *rows("month", zip(table["month"], table["revenue"], strict=True)),
        *rows("region", year_by(months, "regions")),
        *rows("product", year_by(months, "products")),
    ]
    return "\n".join(lines)


def year_by(months: list[dict[str, Any]], what: str) -> Iterable[tuple[str, float]]:
    """The year's revenue by region or product, the highest first."""
    year = pd.DataFrame([month[what] for month in months]).sum().sort_values(ascending=False)
    return [(str(name), float(revenue)) for name, revenue in year.items()]


def rows(title: str, figures: Iterable[tuple[str, float]]) -> list[str]:
    """A Markdown table of names and amounts."""
    lines = [f"| {title:<18} | {'EUR':>14} |", f"|{'-' * 20}|{'-' * 15}:|"]
    lines += [f"| {name:<18} | {revenue:>14,.2f} |" for name, revenue in figures]
    return [*lines, ""]
