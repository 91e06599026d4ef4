"""`lukhas policy history|rollback|reload|diff`: revisions, beside a running gateway or without one."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lukhas.cli.output import (
    ConfigOption,
    Exit,
    JsonOption,
    failing_clearly,
    print_json,
    print_line,
    print_table,
    show,
    show_text,
)
from lukhas.cli.store import ACTOR, find_file, open_existing, open_stores
from lukhas.clock import SystemClock, format_utc
from lukhas.errors import NotFound, PolicyError, StorageUnavailable
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.gateway.admission import Admission, Candidate
    from lukhas.modulation.policy import Policy
    from lukhas.modulation.revision import EventName, PolicyEvent, RevisionStore

CURRENT: Final = "current"
PACKAGED: Final = "packaged"
_LONGEST_USER: Final = 64
_LONGEST_WHY: Final = 160

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; stored with the event.")]


@dataclass(frozen=True, slots=True)
class _Change:
    """What a change of the policy needs."""

    store: RevisionStore
    admission: Admission
    record: Any

    def admit(self, candidate: Candidate, why: str, details: dict[str, Any]) -> Policy:
        """Return a candidate's policy; a refusal is recorded and raised.

        Raises:
            PolicyError: it may not take effect.
        """
        error = candidate.error
        if error is None and candidate.policy is not None:
            return candidate.policy
        error = error or PolicyError("This is no policy.")
        who, problem = name_actor(), str(error)
        body = {"event": "refused", "policy": candidate.policy_id, "who": who, "why": why, "problem": problem}
        _, also = self.record("policy", "", body)
        if candidate.policy is not None:
            details = {**details, "proof": candidate.proof}
        self.store.refuse(
            candidate.policy_id,
            problem,
            who,
            why,
            also,
            policy=candidate.policy,
            certificate=candidate.certificate,
            details=details,
        )
        raise error

    def make(
        self, candidate: Candidate, policy: Policy, event: EventName, why: str, details: dict[str, Any]
    ) -> tuple[PolicyEvent, str]:
        """Write a candidate as the newest event, with its audit record; return the event and the record's id."""
        standing = self.store.standing()
        who = name_actor()
        details = {**details, "proof": candidate.proof}
        if candidate.certificate is not None:
            details["certificate"] = candidate.certificate.hash
        if standing is not None:
            details["before"] = standing.policy_id
        body = {"event": event, "policy": policy.id, "name": policy.name, "who": who, "why": why, **details}
        audit_id, also = self.record("policy", "", body)
        written = self.store.save(policy, candidate.certificate, who, why, event, also, details=details)
        return written, audit_id


def show_history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many events, the newest first.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every change of the policy: what came into force or was refused, who did it, when and why."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.gateway.policies import describe_event

        with _open_revisions(settings) as store:
            events = store.events(limit=limit)
            standing = store.standing()
        if as_json:
            current = None if standing is None else standing.policy_id
            print_json({"current": current, "events": [describe_event(event) for event in events]})
            return
        if not events:
            print_line("No policy was in force yet. The first start of the gateway puts one there.")
            return
        rows: list[tuple[object, ...]] = []
        for event in events:
            is_current = standing is not None and standing.seq == event.seq
            why = f"{event.why} {event.details.get('problem', '')}".strip().splitlines()[0]
            why = why if len(why) <= _LONGEST_WHY else f"{why[:_LONGEST_WHY]}..."
            rows.append(
                (
                    event.policy_id or "(not readable)",
                    format_utc(event.time_ms)[:19].replace("T", " "),
                    f"{event.event.replace('_', ' ')}{' (now)' if is_current else ''}",
                    event.details.get("proof"),
                    event.who,
                    why,
                )
            )
        print_table(("policy", "time (UTC)", "event", "proof", "who", "why"), rows)


def roll_back(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="A revision's id, a beginning of it that no other has, or 'packaged'.")
    ],
    reason: ReasonOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a policy in force that was so before. A running gateway follows within a second."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.gateway.succession import find_target
        from lukhas.modulation.revision import check_reason

        why = check_reason(reason)
        with _open_change(settings) as change:
            text, source = find_target(change.store, revision)
            candidate = change.admission.examine(text, source, is_new=False)
            policy = change.admit(candidate, why, {})
            standing = change.store.standing()
            if standing is not None and standing.policy_id == policy.id:
                _report_unchanged(policy, as_json)
                return
            event, audit_id = change.make(candidate, policy, "rolled_back", why, {})
        _report(event, candidate, audit_id, as_json)


def reload_file(
    reason: ReasonOption = "Asked for.",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the configured file's present content in force, also where another policy was set over it since."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.gateway.policy_file import PolicyFile
        from lukhas.modulation.revision import check_reason

        why = check_reason(reason)
        content = PolicyFile(settings.policy).read()
        details = {"file": content.source, "sha256": content.mark}
        if content.text is None:
            raise content.problem or PolicyError("The policy file cannot be read.")
        with _open_change(settings) as change:
            candidate = change.admission.examine(content.text, content.source, is_new=True)
            policy = change.admit(candidate, why, details)
            standing = change.store.standing()
            certificate = None if candidate.certificate is None else candidate.certificate.hash
            if (
                standing is not None
                and standing.policy_id == policy.id
                and certificate in (None, standing.details.get("certificate"))
            ):
                _report_unchanged(policy, as_json)
                return
            event, audit_id = change.make(candidate, policy, "in_force", why, details)
        _report(event, candidate, audit_id, as_json)


def diff_policies(
    a: Annotated[str, typer.Argument(metavar="A", help="A file, a revision, 'packaged' or 'current'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with, named in the same ways.")] = CURRENT,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in words what changes from A to B: which parameter, for which range of which signal, by how much."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        import msgspec

        from lukhas.modulation.difference import compare_policies

        found = compare_policies(find_policy(a, settings), find_policy(b, settings))
        if as_json:
            print_json(msgspec.to_builtins(found))
        elif found.same:
            print_line(f"{found.a}: the same policy.")
        else:
            print_line(f"{found.a} -> {found.b}")
            for change in found.changes:
                print_line(f"  {show_text(change.text)}")
            if not found.changes:
                print_line("  The texts differ, and nothing that they say does (comments, order, spelling).")
        if exit_code and not found.same:
            raise typer.Exit(Exit.NEGATIVE)


def find_policy(name: str, settings: Settings) -> Policy:
    """Return the policy that a word names: 'packaged', 'current', a file, or a revision.

    Raises:
        PolicyError: it does not load.
        NotFound: there is no such file or revision.
    """
    from lukhas.modulation.policy_reader import load_policy, parse_policy

    if name == PACKAGED:
        return load_policy()
    if name != CURRENT and _is_file(name):
        return load_policy(Path(name))
    try:
        with _open_revisions(settings) as store:
            if name != CURRENT:
                found = store.read(name)
                return parse_policy(found.text, found.policy_id)
            standing = store.standing()
            if standing is not None:
                return parse_policy(store.read(standing.policy_id).text, standing.policy_id)
    except StorageUnavailable:
        # Before the first start there are no revisions; a database that is there and cannot be read is a failure.
        if _has_database(settings):
            raise
        if name != CURRENT:
            raise NotFound(f"There is no file '{show_text(name)}', and no revision is stored yet.") from None
    return load_policy(settings.policy)


def name_actor() -> str:
    """Return who acts at the command line: `cli:` and the user's name, where the system knows one."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        return ACTOR
    return f"{ACTOR}:{show_text(user)[:_LONGEST_USER]}"


@contextmanager
def _open_change(settings: Settings) -> Generator[_Change]:
    from lukhas.gateway.admission import Admission
    from lukhas.modulation.revision import RevisionStore

    with open_stores(settings) as stores:
        store = RevisionStore(stores.database, stores.writer, stores.clock)
        admission = Admission(
            store,
            require_proof=settings.policy_require_proof,
            timeout_s=settings.policy_proof_timeout_s,
            on_proof=lambda policy: _announce_proof(policy, settings.policy_proof_timeout_s),
        )
        yield _Change(store, admission, stores.record)


@contextmanager
def _open_revisions(settings: Settings) -> Generator[RevisionStore]:
    from lukhas.modulation.revision import RevisionStore
    from lukhas.storage import migrate
    from lukhas.storage.writer import GroupCommitWriter

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        yield RevisionStore(database, GroupCommitWriter(database, max_rows=1, name="unused"), SystemClock())


def _announce_proof(policy: Policy, timeout_s: float) -> None:
    sys.stderr.write(f"Proving {policy.id}, up to {timeout_s:g} s ...\n")
    sys.stderr.flush()


def _report(event: PolicyEvent, candidate: Candidate, audit_id: str, as_json: bool) -> None:
    if as_json:
        from lukhas.gateway.policies import describe_event

        print_json({**describe_event(event), "changed": True, "audit_id": audit_id})
        return
    print_line(f"{event.policy_id} is in force ({candidate.proof}), on record as {audit_id}.")
    print_line("A running gateway follows within a second.")


def _report_unchanged(policy: Policy, as_json: bool) -> None:
    if as_json:
        print_json({"policy": policy.id, "changed": False})
    else:
        print_line(f"{policy.id} ({show(policy.name)}) is in force already.")


def _is_file(name: str) -> bool:
    try:
        return Path(name).exists() or "/" in name or name.endswith((".yaml", ".yml"))
    except (OSError, ValueError):
        return False


def _has_database(settings: Settings) -> bool:
    path = find_file(settings.sqlalchemy_url)
    return path is None or path.is_file()
