"""Who is judged: a candidate as it stands, or one policy in the place of another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decision.publishing import Published
from decision.whatif.judging import Asked, Judgement


@dataclass(slots=True)
class Target:
    """One way to decide, judged. `champion`: only decisions it takes part in are, and `policy` decides in its
    place; None: all, as the catalog says."""

    name: str
    description: str
    judgement: Judgement
    champion: str | None = None
    policy: str = ""

    def asked(self, asked: Asked) -> Asked | None:
        """What it decides with, or None where it has no part."""
        if self.champion is None:
            return asked
        if asked.inputs is None or self.champion not in {
            asked.catalog.candidates[id].policy.id for id, _ in asked.inputs.placements
        }:
            return None
        others = {key: id for key, id in asked.inputs.assigned.items() if key != self.champion}
        mine = {} if self.policy == self.champion else {self.champion: self.policy}
        return replace(asked, inputs=replace(asked.inputs, assigned={**others, **mine}))


def roles(published: Published) -> list[tuple[str, str, str]]:
    """(champion, policy, what it is there) of all that have a part."""
    champions = {each.policy.id: each.policy for each in published.compiled.candidates.values()}
    found = []
    for champion, policy in champions.items():
        found.append((champion, champion, "champion"))
        for each in policy.challengers:
            role = "shadow" if each.share is None else f"challenger with {each.share:.0%}"
            found.append((champion, each.policy, role))
    return found
