"""Who may do what: the scopes, the roles, and what each operation of the API needs. The one table of it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

Scope = Literal[
    "decide",
    "respond",
    "profiles:read",
    "profiles:write",
    "catalog:read",
    "catalog:write",
    "catalog:approve",
    "catalog:publish",
    "reports",
    "privacy",
    "admin",
]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

ROLES: Final[dict[str, frozenset[Scope]]] = {
    "agent": frozenset({"decide", "respond", "profiles:read"}),
    "marketer": frozenset({"catalog:read", "catalog:write", "catalog:approve", "reports"}),
    "analyst": frozenset({"catalog:read", "reports"}),
    "operator": frozenset(SCOPES),
}
"""Named sets of scopes."""


class Need(NamedTuple):
    """What an operation needs. `scope`: None where anybody may. `audit`: under which kind a call is written
    down before it is carried out; None where nothing personal is looked at and nothing is changed, or where
    the operation writes down itself what it changes. `subject`: the path parameter that says of what.
    `browsers`: publishable keys may call it.
    """

    scope: Scope | None
    audit: str | None = None
    subject: str | None = None
    browsers: bool = False


_CUSTOMER: Final = "customer_id"
_DECISION: Final = "decision_id"

NEEDED: Final[dict[str, Need]] = {
    # A decision and a response are in the ledger, with all they rest on: that is their record.
    "decide": Need("decide", browsers=True),
    "decideBatch": Need("decide"),
    "respond": Need("respond", browsers=True),
    "getDecision": Need("profiles:read", "decision.read", _DECISION),
    "replayDecision": Need("profiles:read", "decision.replay", _DECISION),
    "explainDecision": Need("profiles:read", "decision.explain", _DECISION),
    "getCustomer": Need("profiles:read", "profile.read", _CUSTOMER),
    "getHistory": Need("profiles:read", "profile.history", _CUSTOMER),
    "putCustomer": Need("profiles:write", "profile.put", _CUSTOMER),
    "patchCustomer": Need("profiles:write", "profile.patch", _CUSTOMER),
    "addIdentities": Need("profiles:write", "profile.identify", _CUSTOMER),
    "deleteCustomer": Need("privacy", "profile.erase", _CUSTOMER),
    "exportCustomer": Need("privacy", "profile.export", _CUSTOMER),
    "importCustomers": Need("profiles:write", "profiles.import"),
    "pushCustomers": Need("profiles:write", "profiles.push"),
    "getCatalog": Need("catalog:read"),
    "validateCatalog": Need("catalog:read"),
    "listCatalogVersions": Need("catalog:read"),
    "diffCatalog": Need("catalog:read"),
    # These are entries of the audit trail by themselves: what is in force follows from them.
    "listHalts": Need("catalog:read"),
    "beginHalt": Need("catalog:write"),  # to stop is easy; to go on is for who may publish
    "endHalt": Need("catalog:publish"),
    "listChanges": Need("catalog:read"),
    "getChange": Need("catalog:read"),
    "draftChange": Need("catalog:write"),
    "editChange": Need("catalog:write"),
    "submitChange": Need("catalog:write"),
    "commentChange": Need("catalog:write"),
    "withdrawChange": Need("catalog:write"),
    "approveChange": Need("catalog:approve"),
    "rejectChange": Need("catalog:approve"),
    "publishChange": Need("catalog:publish"),
    "publishCatalog": Need("catalog:publish"),
    "rollbackCatalog": Need("catalog:publish"),
    "listPolicies": Need("catalog:read"),
    "listSnapshots": Need("catalog:read"),
    "compareSnapshots": Need("catalog:read"),
    "pinSnapshot": Need("catalog:publish", "snapshot.pin", "policy"),
    "unpinSnapshot": Need("catalog:publish", "snapshot.unpin", "policy"),
    "rollbackSnapshot": Need("catalog:publish", "snapshot.rollback", "policy"),
    "reportControlGroups": Need("reports"),
    "reportLift": Need("reports"),
    "reportBudgets": Need("reports"),
    "reportFairness": Need("reports"),
    "readAudit": Need("admin", "audit.read"),
    "healthz": Need(None),
    "readyz": Need(None),
    "metrics": Need("admin"),
}
"""By operation id. An operation that is not here cannot be made."""
