"""What SIMULATED customers like: the hand-written part of the hidden truth (`decision.demo.world`)."""

from __future__ import annotations

SIGNALS = [
    "churn", "upsell", "data", "device_age", "roaming", "ending", "detractor", "promoter",
    "young", "senior", "household", "cancel", "billing", "upgrade", "plans", "devices",
]  # fmt: skip
"""What tastes are about; `world` computes them: scaled numbers, or 1 where it holds and else 0."""

TASTES: dict[str, dict[str, float]] = {
    "renew_12m": {
        "base": -0.02,
        "churn": -0.08,
        "ending": 0.13,
        "cancel": 0.21,
        "senior": 0.29,
        "young": -0.17,
    },
    "renew_24m": {"base": -0.07, "device_age": 0.23, "upsell": 0.11, "young": -0.06, "devices": 0.25},
    "renew_flex": {"base": -0.07, "churn": 0.17, "young": 0.27, "senior": -0.13, "cancel": 0.17},
    "loyalty_credit": {"base": -0.03, "churn": -0.06, "detractor": 0.19, "cancel": 0.25, "billing": 0.21},
    "plan_check": {"base": -0.04, "data": -0.15, "billing": 0.34, "senior": 0.19, "plans": 0.13},
    "early_renewal": {"base": -0.08, "ending": 0.17, "promoter": 0.17, "data": 0.13, "upgrade": 0.13},
    "fibre_upgrade": {
        "base": -0.06,
        "upsell": 0.13,
        "data": 0.11,
        "household": 0.13,
        "plans": 0.13,
        "cancel": -0.11,
    },
    "plan_upgrade": {
        "base": -0.07,
        "data": 0.19,
        "upsell": 0.11,
        "upgrade": 0.32,
        "plans": 0.19,
        "senior": -0.13,
    },
    "family_lines": {"base": -0.07, "household": 0.19, "plans": 0.13, "upgrade": 0.13, "young": -0.13},
    "device_trade_in": {"base": -0.09, "device_age": 0.17, "upsell": 0.08, "upgrade": 0.21, "devices": 0.38},
    "roaming_pass": {"base": -0.06, "roaming": 0.21, "young": 0.15, "upgrade": 0.06, "cancel": -0.08},
    "streaming_bundle": {"base": -0.07, "upsell": 0.13, "young": 0.27, "household": 0.08, "senior": -0.11},
    "outage_notice": {"base": 0.35, "detractor": -0.10},
    "complaint_follow_up": {"base": 0.30, "detractor": 0.05, "cancel": -0.10},
    "direct_debit": {"base": -0.04, "billing": 0.42, "churn": -0.06, "senior": 0.13},
    "app_install": {"base": -0.04, "billing": 0.17, "young": 0.32, "senior": -0.17, "data": 0.06},
    "payment_plan": {"base": -0.02, "billing": 0.46, "churn": 0.08},
    "wifi_check": {"base": -0.03, "household": 0.11, "detractor": 0.23, "senior": 0.15, "data": 0.06},
    "security_check": {"base": -0.05, "senior": 0.34, "promoter": 0.08, "young": -0.11, "billing": 0.08},
    "anniversary_gift": {"base": 0.00, "promoter": 0.15, "churn": -0.08, "data": 0.13, "cancel": -0.13},
    "refer_friend": {"base": -0.09, "promoter": 0.27, "young": 0.21, "churn": -0.06, "cancel": -0.13},
    "priority_club": {"base": -0.04, "roaming": 0.13, "promoter": 0.13, "senior": 0.11, "young": -0.11},
    "points_double": {"base": -0.06, "promoter": 0.11, "young": 0.11, "churn": -0.06, "billing": 0.06},
    "green_recycling": {"base": -0.07, "device_age": 0.11, "young": 0.15, "devices": 0.21, "promoter": 0.06},
}
"""Per action, in points of probability: `base`, and what one unit of a signal adds."""
