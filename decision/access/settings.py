"""The file that says whose tokens are accepted beside API keys."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from decision.access.oidc import Issuer
from decision.errors import Rejected, validation_errors


class Access(BaseModel):
    """`oidc`: the issuer of bearer tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    oidc: Issuer


def read_access(path: Path) -> Access:
    """The settings in a YAML file. Raises Rejected, which names each field at fault."""
    try:
        return Access.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except ValidationError as error:
        errors = validation_errors(error.errors())
        raise Rejected(422, "invalid_access", f"{path} has faults.", errors) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Rejected(422, "invalid_access", f"{path} cannot be read.") from error
