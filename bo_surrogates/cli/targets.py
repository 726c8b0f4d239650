"""What the user means by the name of a problem, a campaign file or a database."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.campaign_file import Facts
    from bo_surrogates.campaign.spec import CampaignSpec
    from problems.base import Problem


def make_problem(name: str, options: Mapping[str, Any]) -> Problem:
    """The registered problem of that name, made with these options.

    Raises:
        InputError: Unknown name or option, or an option out of range.
    """
    from problems import PROBLEMS

    return PROBLEMS[name].make(**options)


def problem_facts(name: str, options: Mapping[str, Any]) -> Facts:
    """What a registered problem is to a campaign; raises as `make_problem`."""
    problem = make_problem(name, options)
    return problem.space, problem.objectives, problem.constraints, problem.fidelity


def read_spec(path: Path) -> CampaignSpec:
    """The campaign a file describes, with the problems known.

    Raises:
        InputError: See `read_campaign_file`.
    """
    from bo_surrogates.campaign.campaign_file import read_campaign_file

    return read_campaign_file(path, problem_facts)


def locate(target: str, database: str | None, name: str | None) -> tuple[str, str | None]:
    """The database that a campaign file or database given by the user means, and the name in it.

    Raises:
        InputError: A campaign file that cannot be read.
    """
    path = Path(target)
    if path.suffix.lower() != ".toml":
        if database is not None:
            raise InputError(
                f"{target!r} is taken as a database already; leave out --database, or give the "
                "campaign file (.toml)"
            )
        return target, name
    if name is None and path.exists():
        try:
            name = tomllib.loads(path.read_text(encoding="utf-8")).get("name", path.stem)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    elif database is None and not path.exists() and not path.with_suffix(".db").exists():
        raise InputError(f"no campaign file {target!r}; check the path")
    return database or str(path.with_suffix(".db")), name


def open_campaign(
    target: str, database: str | None, name: str | None, *, read_only: bool, steal: bool = False
) -> Campaign:
    """The stored campaign that the user means.

    Raises:
        InputError: There is none.
        RunError: It is being written by another process, or cannot be read.
    """
    from bo_surrogates.campaign.campaign import Campaign

    path, name = locate(target, database, name)
    return Campaign.open(path, name, read_only=read_only, steal=steal)


def open_or_start(
    target: str,
    database: str | None,
    name: str | None,
    *,
    steal: bool = False,
    device: str | None = None,
) -> Campaign:
    """The stored campaign that the user means; of a file (.toml), started if it was not yet.

    Surrogates are fitted on the device, if one is given.

    Raises:
        InputError: See `open_campaign` and `start_campaign`.
        RunError: See `open_campaign`.
    """
    if name is None and Path(target).suffix.lower() == ".toml" and not started(target, database):
        return start_campaign(Path(target), database, device)
    campaign = open_campaign(target, database, name, read_only=False, steal=steal)
    if device is not None:
        campaign.use_device(device)
    return campaign


def started(target: str, database: str | None) -> bool:
    """Whether the campaign of a file (.toml) has been started.

    Raises:
        InputError: A campaign file that cannot be read, or a file that is no database.
        RunError: The database cannot be read.
    """
    from bo_surrogates.campaign.storage import Journal, NoDatabaseError

    path, name = locate(target, database, None)
    try:
        journal = Journal(path, read_only=True)
    except NoDatabaseError:
        return False
    try:
        return name in journal.campaigns()
    finally:
        journal.close()


def exists(path: str) -> bool:
    """Whether there is a database; raises as `started`."""
    from bo_surrogates.campaign.storage import Journal, NoDatabaseError

    try:
        Journal(path, read_only=True).close()
    except NoDatabaseError:
        return False
    return True


def start_campaign(path: Path, database: str | None, device: str | None = None) -> Campaign:
    """A new campaign from its file; its black box and device are checked before anything is stored.

    Raises:
        InputError: A mistake in the file, a black box or a device that does not exist, or a
            campaign of that name in the database already.
    """
    from bo_surrogates.campaign.black_box import make_black_box
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.device import usable_device

    spec = read_spec(path)
    if spec.black_box is not None:
        make_black_box(
            spec.black_box, space=spec.space, metrics=spec.metrics, resolve_problem=make_problem
        )
    if (device or spec.device) != "cpu":
        usable_device(device or spec.device)
    campaign = Campaign.create(spec, locate(str(path), database, spec.name)[0])
    if device is not None:
        campaign.use_device(device)
    return campaign
