"""The demo's input, the same on every machine: customers, a year of sales, orders.

``python -m examples.backoffice.data`` writes recipients.csv, which is kept with the code, anew.
"""

from __future__ import annotations

import calendar
import csv
import random
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

RECIPIENTS = Path(__file__).with_name("recipients.csv")
YEAR = 2025
FIELDS = ["number", "name", "email", "company", "city", "invoice", "amount", "due"]


def words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = words(
    "Ada Aisha Alma Amir Anna Arne Bela Carla Chen Dana David Elena Emil Eva Farid Fatou Finn "
    "Greta Hana Hugo Ida Ines Ivan Jamal Jana Jonas Julia Kai Karim Lena Leo Lin Lucia Marta "
    "Mateo Mina Nadia Nils Noor Olga Omar Paula Petra Priya Rafael Rosa Samir Sara Sofia Tariq "
    "Tess Tom Uma Vera Viktor Wanda Yara Yusuf Zoe Zoltan"
)
LAST_NAMES = words(
    "Adeyemi Bauer Berg Castro Costa Diaz Dubois Eriksen Fischer Garcia Haddad Hansen Horvat "
    "Ivanov Jansen Keller Khan Kowalski Kumar Larsen Lopez Marino Meyer Moreau Nakamura Novak "
    "Okafor Olsen Park Petrov Rossi Sato Schmidt Silva Singh Sorensen Tanaka Torres Varga Weber"
)
COMPANIES = words(
    "Alder Birch Cedar Delta Ember Fjord Garnet Harbor Indigo Juniper Kestrel Lagoon Meadow "
    "North Ocean Pine Quarry River Summit Timber"
)
TRADES = ("Books", "Design", "Foods", "Gardens", "Tools")
CITIES = words(
    "Aarhus Bilbao Cork Dakar Espoo Fez Ghent Haifa Izmir Jena Kyoto Lagos Malmo Nice Osaka Porto "
    "Quito Riga Split Turin Utrecht Vilnius Warsaw York Zagreb"
)
PRODUCTS = {
    "notebook": 449,
    "fountain pen": 2490,
    "desk lamp": 5995,
    "office chair": 21900,
    "paper, 500 sheets": 599,
    "ink, black": 1275,
    "whiteboard": 8450,
    "stapler": 1190,
}
REGIONS = ("north", "east", "south", "west")


class Recipient(NamedTuple):
    """One row of recipients.csv: a customer and the invoice that is due."""

    number: int
    name: str
    email: str
    company: str
    city: str
    invoice: str
    amount: str
    due: str


def make_recipients(count: int = 500) -> list[Recipient]:
    """Customers at addresses under ``.example``, which no mail server in the world serves."""
    pick = random.Random("recipients")
    recipients = []
    for number in range(1, count + 1):
        first, last = pick.choice(FIRST_NAMES), pick.choice(LAST_NAMES)
        company = f"{pick.choice(COMPANIES)} {pick.choice(TRADES)}"
        domain = company.lower().replace(" ", "-")
        cents = pick.randrange(900, 250_000)
        due = date(YEAR + 1, 1, 10) + timedelta(days=pick.randrange(60))
        recipients.append(
            Recipient(
                number=number,
                name=f"{first} {last}",
                email=f"{first}.{last}.{number}@{domain}.example".lower(),
                company=company,
                city=pick.choice(CITIES),
                invoice=f"{YEAR}-{number:04}",
                amount=f"{cents // 100}.{cents % 100:02}",
                due=due.isoformat(),
            )
        )
    return recipients


def write_recipients(path: Path = RECIPIENTS) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(make_recipients())


def read_recipients(path: Path = RECIPIENTS) -> list[Recipient]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Recipient(number=int(row.pop("number")), **row) for row in csv.DictReader(file)]


def write_sales(folder: Path, *, rows_a_month: int = 4000) -> list[Path]:
    """A CSV file of sales for each month of the year; returns have a negative quantity."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_month(folder, month, rows_a_month) for month in range(1, 13)]


def write_month(folder: Path, month: int, rows: int) -> Path:
    pick = random.Random(f"sales {month}")
    days = calendar.monthrange(YEAR, month)[1]
    products = list(PRODUCTS)
    path = folder / f"{YEAR}-{month:02}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", "region", "product", "quantity", "unit_price"])
        for day in sorted(pick.randrange(days) + 1 for _ in range(rows)):
            product = pick.choice(products)
            cents = PRODUCTS[product] * pick.choice((90, 95, 100, 100)) // 100
            quantity = pick.randrange(1, 12) * (-1 if pick.random() < 0.03 else 1)
            price = f"{cents // 100}.{cents % 100:02}"
            writer.writerow(
                [date(YEAR, month, day).isoformat(), pick.choice(REGIONS), product, quantity, price]
            )
    return path


class Order(NamedTuple):
    """What is ordered from the supplier; ``id`` keeps a repeated call from ordering twice."""

    id: str
    product: str
    quantity: int


def make_orders(count: int = 100) -> list[Order]:
    pick = random.Random("orders")
    products = list(PRODUCTS)
    return [
        Order(f"order-{number:04}", pick.choice(products), pick.randrange(1, 50))
        for number in range(1, count + 1)
    ]


if __name__ == "__main__":
    write_recipients()
    print(f"wrote {RECIPIENTS}")
