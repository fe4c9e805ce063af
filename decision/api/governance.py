"""Routes for governance: emergency stops, and changes of the catalog on their way."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from arbitration.facts import rfc3339
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.guard import Caller
from decision.api.problems import documented
from decision.diffing import PartDifference
from decision.governance.changes import Change
from decision.governance.halts import Halt
from decision.governance.messages import (
    ApprovalReply,
    ApproveRequest,
    ChangeReply,
    ChangesReply,
    ChangeSummary,
    CommentRequest,
    DifferenceReply,
    DiffReply,
    Document,
    DraftRequest,
    EditRequest,
    HaltReply,
    HaltRequest,
    HaltsReply,
    NoteReply,
    PartDifferenceReply,
    PublishChangeRequest,
    ReasonRequest,
    Text,
)
from decision.messages import Key

router = APIRouter(prefix="/v1", tags=["governance"], route_class=StrictRoute)
HaltId = Annotated[Key, Path()]
ChangeId = Annotated[Key, Path()]
_WRITTEN = documented(400, 404, 409, 413, 415)


@router.post("/halts", operation_id="beginHalt", status_code=201, responses=documented(400, 409, 413, 415))
async def begin_halt(request: HaltRequest, parts: Parts, caller: Caller) -> HaltReply:
    """Stops an action, a group or a channel for everybody, under this and every later catalog; every process
    follows within two seconds. Responses to what was shown before still count."""
    return _halt(await parts.governing.halt(caller.name, request.scope, request.target, request.why))


@router.get("/halts", operation_id="listHalts", responses=documented())
async def halts(parts: Parts) -> HaltsReply:
    """The emergency stops in force."""
    return HaltsReply(halts=[_halt(halt) for halt in await parts.governing.halts()])


@router.delete("/halts/{halt_id}", operation_id="endHalt", responses=documented(404))
async def end_halt(
    halt_id: HaltId, why: Annotated[Text, Query()], parts: Parts, caller: Caller
) -> HaltsReply:
    """Ends an emergency stop; those that are left."""
    await parts.governing.resume(caller.name, halt_id, why)
    return await halts(parts)


@router.post("/catalog/diff", operation_id="diffCatalog", responses=documented(400, 413, 415))
async def diff(document: Annotated[Document, Body()], parts: Parts) -> DiffReply:
    """What publishing a document would change."""
    return _diff(*await parts.governing.differ(document))


@router.post(
    "/catalog/changes", operation_id="draftChange", status_code=201, responses=documented(400, 413, 415)
)
async def draft(request: DraftRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Begins a change, with a document that could be published."""
    governing = parts.governing
    return await _change(
        parts, await governing.draft(caller.name, request.document, request.title, request.why)
    )


@router.get("/catalog/changes", operation_id="listChanges", responses=documented())
async def changes(parts: Parts) -> ChangesReply:
    """All changes there ever were, the newest first."""
    found = await parts.governing.changes()
    return ChangesReply(changes=[ChangeSummary.model_validate(_summary(change)) for change in found])


@router.get("/catalog/changes/{change_id}", operation_id="getChange", responses=documented(404))
async def change(change_id: ChangeId, parts: Parts) -> ChangeReply:
    """A change: its steps, its comments, and what it would change now."""
    return await _change(parts, await parts.governing.change(change_id))


@router.put("/catalog/changes/{change_id}", operation_id="editChange", responses=_WRITTEN)
async def edit(change_id: ChangeId, request: EditRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Gives it another document. It is a draft again, and whoever edits it is one of its authors."""
    edited = await parts.governing.edit(caller.name, change_id, request.document, request.why, request.title)
    return await _change(parts, edited)


@router.post("/catalog/changes/{change_id}/submit", operation_id="submitChange", responses=_WRITTEN)
async def submit(change_id: ChangeId, request: ReasonRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Asks for an approval."""
    return await _change(parts, await parts.governing.take(caller.name, change_id, "submit", request.why))


@router.post("/catalog/changes/{change_id}/approve", operation_id="approveChange", responses=_WRITTEN)
async def approve(change_id: ChangeId, request: ApproveRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Approves the document with this `version`, if the change still has it. Where the live catalog asks for
    four eyes, none of its authors can."""
    approved = await parts.governing.take(caller.name, change_id, "approve", request.why, request.version)
    return await _change(parts, approved)


@router.post("/catalog/changes/{change_id}/reject", operation_id="rejectChange", responses=_WRITTEN)
async def reject(change_id: ChangeId, request: ReasonRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Says no; also to what is approved or planned, but not published yet."""
    return await _change(parts, await parts.governing.take(caller.name, change_id, "reject", request.why))


@router.post("/catalog/changes/{change_id}/comment", operation_id="commentChange", responses=_WRITTEN)
async def comment(change_id: ChangeId, request: CommentRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Adds a remark, for good."""
    return await _change(
        parts, await parts.governing.take(caller.name, change_id, "comment", request.comment)
    )


@router.post("/catalog/changes/{change_id}/withdraw", operation_id="withdrawChange", responses=_WRITTEN)
async def withdraw(change_id: ChangeId, request: ReasonRequest, parts: Parts, caller: Caller) -> ChangeReply:
    """Gives it up, and what was planned with it."""
    return await _change(parts, await parts.governing.take(caller.name, change_id, "withdraw", request.why))


@router.post("/catalog/changes/{change_id}/publish", operation_id="publishChange", responses=_WRITTEN)
async def publish(
    change_id: ChangeId, request: PublishChangeRequest, parts: Parts, caller: Caller
) -> ChangeReply:
    """Makes the document with this `version` live, if the change still has it: now or at a time, for good or
    until another. Where the live catalog asks for four eyes,
    this very document needs the approval of somebody who wrote none of it."""
    published = await parts.governing.publish(
        caller.name, change_id, request.version, request.why, request.at, request.until
    )
    return await _change(parts, published)


def _halt(halt: Halt) -> HaltReply:
    return HaltReply.model_validate(
        {
            "id": halt.id,
            "scope": halt.scope,
            "target": halt.target,
            "why": halt.why,
            "by": halt.by,
            "at": rfc3339(halt.at),
        }
    )


def _summary(change: Change) -> dict[str, object]:
    approval, schedule = change.approval, change.schedule
    until = change.until if schedule is None else schedule.until
    return {
        "id": change.id,
        "title": change.title,
        "state": change.state,
        "version": change.version,
        "base": change.base,
        "authors": list(change.authors),
        "approval": None
        if approval is None
        else ApprovalReply(by=approval.by, at=rfc3339(approval.at), version=approval.version),
        "approved_by_another": change.approved_by_another,
        "at": None if schedule is None else rfc3339(schedule.at),
        "until": None if until is None else rfc3339(until),
        "failure": change.failure,
    }


async def _change(parts: Parts, change: Change) -> ChangeReply:
    live = await parts.governing.live_version()
    return ChangeReply.model_validate(
        {
            **_summary(change),
            "history": [
                NoteReply(step=note.step, by=note.by, at=rfc3339(note.at), detail=dict(note.detail))
                for note in change.history
            ],
            "warnings": change.warnings(live),
            "diff": _diff(*await parts.governing.effect(change)),
        }
    )


def _diff(against: str | None, found: list[PartDifference]) -> DiffReply:
    return DiffReply(
        against=against,
        parts=[
            PartDifferenceReply(
                part=part.part,
                kind=part.kind,
                changes=[
                    DifferenceReply(
                        kind=each.kind, path=each.path, before=each.before, after=each.after, text=each.text
                    )
                    for each in part.changes
                ],
            )
            for part in found
        ],
        text=[line for part in found for line in part.lines],
    )
