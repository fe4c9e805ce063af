"""Customers of several genders and ages, a catalog that treats them differently, and what they answer."""

from __future__ import annotations

from typing import Any

from support import CHANNEL_OF, Service, catalog_document

from decision.storage.port import Customer

WOMEN, MEN, FEW, UNKNOWN = 48, 36, 3, 30
AGAIN = 20
"""Women who come twice."""
PLACEMENTS = ("panel", "side", "block")


def sensitive_catalog() -> dict[str, Any]:
    """The small catalog with sensitive attributes: `upgrade` is for who has Basic, as most men here."""
    document = catalog_document()
    document["attributes"] += [
        {"id": "gender", "type": "string", "values": ["f", "m", "x"], "sensitive": True},
        {"id": "age", "type": "int", "sensitive": True, "bands": [30, 50], "pii": True},
        {"id": "adult", "type": "bool", "derive": "customer.age >= 18"},
        {"id": "creed", "type": "string", "sensitive": True},
    ]
    document["actions"][3]["eligibility"] = ["!has(customer.adult) || customer.adult"]
    document["policies"][0]["strategy"] = "epsilon_greedy"
    document["placements"][0]["slots"] = 1  # who has Basic is proposed the upgrade in the first place
    return document


def customers() -> list[Customer]:
    found = []
    for gender, count in (("f", WOMEN), ("m", MEN), ("x", FEW), (None, UNKNOWN)):
        for number in range(count):
            plan = "Basic" if gender == "m" or (gender == "f" and number % 4 == 0) else "Max"
            attributes: dict[str, Any] = {"plan": plan, "age": 25 if number % 2 else 50}
            if gender is not None:
                attributes["gender"] = gender
            consents = {"marketing": "given"}
            found.append(Customer(f"{gender}-{number}", attributes, {}, consents))
    return found


async def visits(service: Service, who: list[Customer]) -> None:
    asked = [
        {"customer_id": each.customer_id, "channel": CHANNEL_OF["panel"], "placements": [{"id": "panel"}]}
        for each in who
    ]
    reply = await service.client.post("/v1/decisions:batch", json={"requests": asked})
    responses = []
    for result in reply.json()["results"]:
        decision = result["decision"]
        for item in decision["placements"][0]["items"]:
            yes = item["action"] == "check" and decision["customer_id"].startswith("f")
            responses.append(
                {
                    "response_id": decision["decision_id"],
                    "decision_id": decision["decision_id"],
                    "treatment": item["treatment"],
                    "outcome": "accepted" if yes else "rejected",
                }
            )
    reply = await service.client.post("/v1/responses", json=responses)
    assert reply.status_code in (200, 201, 202), reply.text
