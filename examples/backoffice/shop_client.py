"""Calling the supplier's API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

from examples.backoffice.data import Order


class ShopBusy(Exception):
    """The API answered 503: try again later."""


def post_order(url: str, order: Order, *, timeout: float = 10.0) -> dict[str, Any]:
    """Place the order and return the API's answer. Calling twice orders once: the id is the
    idempotency key. Raises ShopBusy, ConnectionError, TimeoutError, or HTTPError for our mistakes.
    """
    request = urllib.request.Request(
        f"{url}/orders",
        data=json.dumps(order._asdict()).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": order.id},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            document: dict[str, Any] = json.load(answer)
            return document
    except urllib.error.HTTPError as error:
        with error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise ShopBusy(f"the shop at {url} is too busy for {order.id}") from error
            raise
    except urllib.error.URLError as error:
        raise ConnectionError(f"the shop at {url} cannot be reached: {error.reason}") from error
