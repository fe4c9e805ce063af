"""What differs between two catalogs."""

from __future__ import annotations

from support import catalog_document

from decision.diffing import Difference, differences


def test_equal_catalogs_do_not_differ() -> None:
    assert differences(catalog_document(), catalog_document()) == []


def test_every_change_is_told_by_id() -> None:
    before, after = catalog_document(), catalog_document()
    after["actions"][1]["lever"] = 2.0
    del after["actions"][0]
    after["groups"].append({"id": "new"})
    after["policies"].reverse()  # the first is the default
    assert differences(before, after) == [
        Difference("added", "groups.new", None, {"id": "new"}),
        Difference("changed", "policies (order)", ["default", "plain"], ["plain", "default"]),
        Difference("removed", "actions.renew_12", before["actions"][0]),
        Difference("changed", "actions.renew_24.lever", 1.5, 2.0),
    ]
