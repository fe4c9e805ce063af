"""Changes carried out: by whom, of which document, at what time; and of several at once, one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import DAY, NOW, Clock, Service, catalog_document, running

from decision.errors import Rejected
from decision.governance.changes import Change
from decision.governance.governing import Governing


def named(name: str, *, four_eyes: bool = True) -> dict[str, Any]:
    return {**catalog_document(), "name": name, "governance": {"four_eyes": four_eyes}}


@asynccontextmanager
async def guarded(tmp_path: Path, poll: float = 60) -> AsyncIterator[tuple[Service, Governing]]:
    """A service whose live catalog, named `zero`, asks for four eyes."""
    async with running(tmp_path / "a.db", Clock(), poll=poll) as service:
        await service.publish(named("zero"))
        yield service, service.context.governing


async def approved(governing: Governing, name: str, **more: bool) -> Change:
    change = await governing.draft("anna", named(name, **more), name, "why")
    await governing.take("anna", change.id, "submit", "done")
    return await governing.take("bert", change.id, "approve", "well", change.version)


def live(service: Service) -> str:
    return service.context.live.serving.published.compiled.model.name


async def refused(doing: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(Rejected) as error:
        await doing
    return error.value.status, error.value.code


async def kinds(service: Service) -> list[str]:
    return [entry.event.kind for entry in await service.context.store.entries(0, 1000)]


async def test_with_four_eyes_a_catalog_needs_somebody_else(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (service, governing):
        reply = await service.client.post("/v1/catalog/publish", json=named("one"))
        assert (reply.status_code, reply.json()["code"]) == (403, "approval_needed")
        change = await governing.draft("anna", named("one"), "One", "why")
        assert await refused(governing.publish("bert", change.id, change.version, "go")) == (
            403,
            "approval_needed",
        )
        assert await refused(governing.take("bert", change.id, "approve", "x", change.version)) == (
            409,
            "wrong_state",
        )
        await governing.take("anna", change.id, "submit", "done")
        assert await refused(governing.take("anna", change.id, "approve", "x", change.version)) == (
            403,
            "own_change",
        )
        await governing.take("bert", change.id, "approve", "well", change.version)
        assert live(service) == "zero"
        published = await governing.publish("anna", change.id, change.version, "go")
        assert (published.state, live(service)) == ("published", "one")
        assert await refused(governing.publish("anna", change.id, change.version, "go")) == (
            409,
            "wrong_state",
        )
        versions = (await service.client.get("/v1/catalog/versions")).json()["versions"]
        assert {key: versions[0][key] for key in ("published_by", "why", "title", "change", "live")} == {
            "published_by": "anna", "why": "go", "title": "One", "change": change.id, "live": True,
        }  # fmt: skip
        assert (versions[1]["published_by"], versions[1]["change"]) == ("local", None)


async def test_an_edit_voids_the_approval(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (service, governing):
        change = await approved(governing, "one")
        edited = await governing.edit("bert", change.id, named("other"), "better")
        assert (edited.state, edited.approval, edited.authors) == ("draft", None, ("anna", "bert"))
        change = await governing.take("anna", change.id, "submit", "done")
        for author in ("anna", "bert"):
            assert await refused(governing.take(author, change.id, "approve", "x", change.version)) == (
                403,
                "own_change",
            )
        assert await refused(governing.publish("bert", change.id, change.version, "go")) == (
            403,
            "approval_needed",
        )
        await governing.take("carl", change.id, "approve", "well", change.version)
        await governing.publish("anna", change.id, change.version, "go")
        assert live(service) == "other"


async def test_who_approves_or_publishes_covers_what_they_have_seen(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (service, governing):
        benign = await governing.draft("anna", named("benign"), "One", "why")
        await governing.take("anna", benign.id, "submit", "done")
        await governing.edit("anna", benign.id, named("sly"), "why")
        sly = await governing.take("anna", benign.id, "submit", "done")
        path = f"/v1/catalog/changes/{benign.id}"
        for seen, expected in (({"version": benign.version}, "changed"), ({}, "invalid_request")):
            for step in ("approve", "publish"):
                problem = (await service.client.post(f"{path}/{step}", json={"why": "well", **seen})).json()
                assert (problem["code"], [each["field"] for each in problem["errors"]]) == (
                    expected,
                    ["version"],
                )
        assert await refused(governing.take("bert", sly.id, "approve", "x")) == (409, "changed")
        await governing.take("bert", sly.id, "approve", "seen", sly.version)
        for at in (None, NOW + DAY):
            stale = governing.publish("anna", sly.id, benign.version, "go", at)
            assert await refused(stale) == (409, "changed")
        assert live(service) == "zero"


async def test_an_edit_in_the_middle_of_a_publication_comes_first(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    governing, load = service.context.governing, service.context.live.published
    await service.publish(named("zero", four_eyes=False))
    change = await governing.draft("anna", named("one"), "One", "why")

    async def edited(version: str) -> Any:
        monkeypatch.undo()
        await governing.edit("bert", change.id, named("two"), "better")
        return await load(version)

    monkeypatch.setattr(service.context.live, "published", edited)
    assert await refused(governing.publish("anna", change.id, change.version, "go")) == (409, "changed")
    assert live(service) == "zero"


async def test_nobody_puts_through_alone_what_another_has_not_finished(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (_, governing):
        change = await governing.draft("bert", named("half"), "Half", "not ready")
        assert await refused(governing.take("anna", change.id, "submit", "x")) == (403, "not_an_author")
        await governing.edit("anna", change.id, named("half"), "taken over")
        await governing.take("anna", change.id, "submit", "x")
        assert await refused(governing.take("anna", change.id, "approve", "x", change.version)) == (
            403,
            "own_change",
        )


@pytest.mark.parametrize("four_eyes", [True, False])
async def test_what_is_published_directly_expires_as_it_was_planned(tmp_path: Path, four_eyes: bool) -> None:
    async with running(tmp_path / "a.db", Clock()) as service:
        governing, document = service.context.governing, named("brief", four_eyes=four_eyes)
        await service.publish(named("zero", four_eyes=four_eyes))
        change = await governing.draft("anna", document, "Brief", "why")
        if four_eyes:
            await governing.take("anna", change.id, "submit", "done")
            await governing.take("bert", change.id, "approve", "well", change.version)
        await governing.publish("anna", change.id, change.version, "go", NOW + DAY, NOW + 2 * DAY)
        for hours in (1, 2):  # the second time it is live already, and another change has its document
            if hours == 2:
                await approved(governing, "brief", four_eyes=four_eyes)
            service.clock.now = NOW + timedelta(hours=hours)
            assert (await service.client.post("/v1/catalog/publish", json=document)).status_code == 200
            assert live(service) == "brief"
        assert (await governing.change(change.id)).until == NOW + 2 * DAY
        service.clock.now = NOW + 2 * DAY
        await service.context.scheduling.step()
        assert live(service) == "zero"
        late = await approved(governing, "late", four_eyes=four_eyes)
        await governing.publish("anna", late.id, late.version, "go", NOW + 3 * DAY, NOW + 4 * DAY)
        service.clock.now = NOW + 5 * DAY  # while no process looked
        reply = await service.client.post("/v1/catalog/publish", json=named("late", four_eyes=four_eyes))
        assert (reply.status_code, reply.json()["code"]) == (409, "too_late")


async def test_what_has_its_approval_may_be_published_directly_and_what_was_live_with_one_come_back(
    tmp_path: Path,
) -> None:
    async with guarded(tmp_path) as (service, governing):
        change = await approved(governing, "one")
        reply = await service.client.post("/v1/catalog/publish", json=named("one"), params={"why": "now"})
        assert (reply.status_code, reply.json()["change"]) == (200, change.id)
        assert (await governing.change(change.id)).state == "published"
        two = await approved(governing, "two")
        await governing.publish("anna", two.id, two.version, "go")
        zero = (await service.client.get("/v1/catalog/versions")).json()["versions"][-1]["version"]

        async def rolled_back(version: str) -> tuple[int, str]:
            reply = await service.client.post("/v1/catalog/rollback", json={"version": version})
            return reply.status_code, reply.json().get("code", "")

        assert await rolled_back(zero) == (403, "approval_needed")
        assert await rolled_back(change.version) == (200, "")
        assert live(service) == "one"
        draft = await governing.draft("anna", named("never", four_eyes=False), "Never", "why")
        assert await rolled_back(draft.version) == (
            404,
            "unknown_catalog_version",
        )  # kept, but never published


async def test_without_four_eyes_one_person_does_it_all(service: Service) -> None:
    governing = service.context.governing
    await service.publish(named("zero", four_eyes=False))
    change = await governing.draft("anna", named("one", four_eyes=False), "One", "why")
    await governing.take("anna", change.id, "submit", "done")
    await governing.take("anna", change.id, "approve", "fine", change.version)
    await governing.publish("anna", change.id, change.version, "go")
    assert live(service) == "one"
    straight = await governing.draft("anna", named("two"), "Two", "why")
    await governing.publish("anna", straight.id, straight.version, "go")
    # which asks for four eyes: an approval from before, by its author, is none any more
    own = await governing.draft("anna", named("three"), "Three", "why")
    assert await refused(governing.publish("anna", own.id, own.version, "go")) == (403, "approval_needed")


async def test_the_rule_is_that_of_the_catalog_that_is_live_at_that_moment(tmp_path: Path) -> None:
    """One publishes a catalog that asks for four eyes, while another publishes one nobody has seen."""
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with running(folder / "a.db") as first, running(folder / "a.db") as second:
            await first.publish(named("zero", four_eyes=False))
            replies = await asyncio.gather(
                *(
                    each.client.post("/v1/catalog/publish", json=document)
                    for each, document in ((first, named("strict")), (second, named("sly", four_eyes=False)))
                )
            )
            names = [name for name, reply in zip(("strict", "sly"), replies, strict=True) if reply.is_success]
            versions = (await first.client.get("/v1/catalog/versions")).json()["versions"]
            # Either the sly one came first, or it was refused; it never comes after the strict one.
            assert "strict" in names
            assert versions[0]["version"] == replies[0].json()["version"]


@pytest.mark.parametrize("step", ["approve", "publish", "schedule"])
async def test_of_several_at_once_one_wins(tmp_path: Path, step: str) -> None:
    async with guarded(tmp_path) as (first, one), running(tmp_path / "a.db", Clock()) as second:
        change = await approved(one, "one")
        if step == "approve":
            change = await one.edit("anna", change.id, named("one"), "again")
            await one.take("anna", change.id, "submit", "done")
        two = second.context.governing
        each = [(governing, actor) for governing in (one, two) for actor in ("bert", "carl")]

        async def take(governing: Governing, actor: str) -> Any:
            if step == "approve":
                return await governing.take(actor, change.id, "approve", "well", change.version)
            return await governing.publish(actor, change.id, change.version, "go")

        if step == "schedule":
            await one.publish("anna", change.id, change.version, "later", NOW + DAY)
            first.clock.now = second.clock.now = NOW + DAY
            steps = (service.context.scheduling.step() for service in (first, second, first, second))
            await asyncio.gather(*steps)
        else:
            made = await asyncio.gather(*(take(*who) for who in each), return_exceptions=True)
            won = [result for result in made if not isinstance(result, BaseException)]
            lost = [result for result in made if isinstance(result, Rejected)]
            assert (len(won), {error.status for error in lost}, len(lost)) == (1, {409}, 3)
        kind = "change.approve" if step == "approve" else "change.publish"
        entries = await first.context.store.entries(0, 1000)
        assert sum(entry.event.kind == kind for entry in entries) == (2 if step == "approve" else 1)
        publications = await first.context.store.publications()
        assert len(publications) == (1 if step == "approve" else 2)
        assert await first.context.store.broken() is None


async def test_a_change_is_published_at_its_time_and_what_was_before_put_back(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (service, governing):
        change = await approved(governing, "one")
        planned = await governing.publish("anna", change.id, change.version, "go", NOW + DAY, NOW + 2 * DAY)
        assert planned.state == "scheduled"
        shown = (await service.client.get(f"/v1/catalog/changes/{change.id}")).json()
        assert (shown["at"], shown["until"]) == ("2026-03-02T12:30:15.250000Z", "2026-03-03T12:30:15.250000Z")
        scheduling, names = service.context.scheduling, []
        for hours in (0, 23, 24, 25, 47, 48, 49):
            service.clock.now = NOW + timedelta(hours=hours)
            await scheduling.step()
            names.append(live(service))
        assert names == ["zero", "zero", "one", "one", "one", "zero", "zero"]
        done = (await governing.change(change.id)).history[-2:]
        assert [(note.step, note.by) for note in done] == [("publish", "service"), ("expire", "service")]
        assert done[0].detail["why"] == "scheduled by anna"
        assert (await kinds(service)).count("change.publish") == 1


async def test_the_loop_does_it_within_two_seconds(tmp_path: Path) -> None:
    async with guarded(tmp_path, poll=0.05) as (service, governing):
        change = await approved(governing, "one")
        await governing.publish("anna", change.id, change.version, "go", NOW + DAY)
        service.clock.now = NOW + DAY
        async with asyncio.timeout(2):
            while live(service) != "one":
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("spoilt", ["withdraw", "reject", "edit", "strict", "too late", "unreadable"])
async def test_what_may_not_be_published_any_more_is_not(
    tmp_path: Path, spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "a.db", Clock()) as service:
        governing = service.context.governing
        await service.publish(named("zero", four_eyes=False))
        change = await governing.draft("anna", named("one"), "One", "why")
        await governing.publish("anna", change.id, change.version, "go", NOW + DAY, NOW + 2 * DAY)
        if spoilt in ("withdraw", "reject"):
            await governing.take("bert", change.id, "withdraw" if spoilt == "withdraw" else "reject", "no")
        elif spoilt == "edit":
            await governing.edit("bert", change.id, named("two"), "better")
        elif spoilt == "strict":  # which asks for an approval, and there is none
            await service.publish(named("strict"))
        elif spoilt == "unreadable":  # to the release that runs by then, which fails in a way of its own
            service.context.live._catalogs.clear()
            monkeypatch.setattr("decision.live.load_published", lambda *_: 1 / 0)
        service.clock.now = NOW + (3 * DAY if spoilt == "too late" else DAY)
        before = live(service)
        for _ in range(3):
            await service.context.scheduling.step()
        assert live(service) == before
        noted = (await kinds(service)).count("change.fail")
        assert noted == (0 if spoilt in ("withdraw", "reject", "edit") else 1)  # once
        now = await governing.change(change.id)
        assert now.schedule is None
        assert (now.failure is not None) == bool(noted)


async def test_what_was_overtaken_is_not_put_back(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (service, governing):
        change = await approved(governing, "one")
        await governing.publish("anna", change.id, change.version, "go", until=NOW + DAY)
        two = await approved(governing, "two")
        await governing.publish("anna", two.id, two.version, "go")
        service.clock.now = NOW + 9 * DAY
        await service.context.scheduling.step()
        assert live(service) == "two"
        # nor where somebody published past the audit trail
        three = await approved(governing, "three")
        await governing.publish("anna", three.id, three.version, "go", until=NOW + 10 * DAY)
        document = await service.context.store.catalog(change.version)
        assert document is not None
        await service.context.store.publish_catalog(change.version, document, NOW)
        service.clock.now = NOW + 11 * DAY
        for _ in range(2):
            await service.context.scheduling.step()
        await service.context.live.refresh()
        assert live(service) == "one"
        assert (await governing.change(three.id)).failure == "Another catalog was published meanwhile."


async def test_a_time_that_is_over_is_refused(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (_, governing):
        change = await approved(governing, "one")
        for at, until in ((NOW, None), (NOW + DAY, NOW + DAY), (None, NOW)):
            assert await refused(governing.publish("anna", change.id, change.version, "go", at, until)) == (
                422,
                "invalid_request",
            )


async def test_nothing_is_there_to_put_back_at_first(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db") as service:
        governing = service.context.governing
        change = await governing.draft("anna", named("one"), "One", "why")
        assert (await refused(governing.publish("anna", change.id, change.version, "go", until=NOW + DAY)))[
            0
        ] == 422
