"""Which policy follows which: by its file, by the API, by a rollback, or by another process on the same database.

A candidate is examined beside the calls (`Admission`), then written as the newest event, and only then put in force:
what a decision names is always on record. The newest event wins, over restarts too, until the next one; a file is an
event when its content differs from what it had when a file last took effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

import structlog

from lukhas.access.ring import ApiKey
from lukhas.audit.redaction import redact_text
from lukhas.errors import Conflict, IntegrityError, LukhasError, NotFound, PolicyError, PreconditionFailed
from lukhas.gateway.admission import Admission, Candidate, run_aside
from lukhas.gateway.policies import Active, PolicyInForce, activate
from lukhas.gateway.policy_file import PACKAGED, FileContent, PolicyFile
from lukhas.modulation.policy import policy_id
from lukhas.modulation.policy_reader import read_packaged_text
from lukhas.modulation.revision import Also, EventName, PolicyEvent, RevisionStore
from lukhas.telemetry import Metrics

log = structlog.get_logger("lukhas.policy")

BY_FILE: Final = "file"
BY_ITSELF: Final = "gateway"
_OVERTAKEN: Final = (
    "Another change of the policy came first while the file was examined; to put the file in force all the same: "
    "lukhas policy reload."
)
_REST_S: Final = 5.0

MakeAlso = Callable[[dict[str, Any], ApiKey | None], Also]
"""Makes an audit record of a body, by a key or by the system itself, to be written in the same transaction."""


class Succession:
    """Puts policies in force, one at a time.

    Args:
        file: the configured file.
        make_also: makes the audit record of a change.

    Attributes:
        policies: what is in force.
        on_adopt: called on the event loop, together with each change.
    """

    def __init__(
        self, file: PolicyFile, store: RevisionStore, admission: Admission, make_also: MakeAlso, metrics: Metrics
    ) -> None:
        """Find what is in force: the file where it is new or changed, else what stood last.

        Raises:
            PolicyError: neither may take effect; or the setting names another file than before, and that one may not.
            StorageUnavailable: the revisions cannot be read or written.
        """
        self.on_adopt: Callable[[Active], None] = _nothing
        self._file = file
        self._store = store
        self._admission = admission
        self._make_also = make_also
        self._lock = asyncio.Lock()
        self._version = -1
        self._before: str | None = None
        self._rests_until = 0.0
        content = file.read()
        standing, last, used = store.standing(), store.last_of_file(), store.last_of_file(is_taken_up=True)
        active: Active | None = None
        refused: PolicyEvent | None = None
        self._before = None if standing is None else standing.policy_id
        if standing is None or _is_fresh(content, standing, last, used):
            candidate = self._examine(content, is_new=True)
            if candidate.error is None:
                active = self._begin(candidate, content, standing)
            else:
                refused = self._begin_refused(candidate, candidate.error, content, last, used)
        if active is None:
            assert standing is not None, "without one, a file that may not take effect was raised above"
            active = self._resume(standing, content)
        self._before = active.policy.id
        self.policies = PolicyInForce(active, metrics)
        if refused is not None:
            self.policies.refuse(refused, is_file=True)
        self._note_file(content)

    async def watch_file(self) -> None:
        """Take the file's content up where it has changed; where that could not be recorded, try again later."""
        if time.monotonic() < self._rests_until:
            return
        content = await asyncio.to_thread(self._file.read_if_settled)
        if content is None:
            return
        try:
            await self._take_up(content)
        except LukhasError:
            self._file.forget()
            self._rests_until = time.monotonic() + _REST_S
            raise

    async def watch_database(self) -> None:
        """Follow a change that another process has made."""
        version, standing = await asyncio.to_thread(self._store.standing_if_changed, self._version)
        if standing is not None and standing.seq > self.policies.active.event.seq:
            await self._follow(standing)
        self._version = version

    async def put(
        self, text: str, why: str, key: ApiKey, *, matching: Collection[str] | None = None
    ) -> tuple[Active, bool]:
        """Put a policy's text in force.

        Args:
            matching: ids of which the policy in force must have one, before and after the proof; None for any.

        Returns:
            What is in force then, and whether that is a change.

        Raises:
            PreconditionFailed: another policy is in force.
            PolicyError: it may not take effect; that is on record.
            StorageUnavailable: it could not be recorded, and so does not take effect.
        """
        return await self._change(text, "api", "in_force", why, key, matching=matching, is_new=True)

    async def roll_back(
        self, revision: str, why: str, key: ApiKey, *, matching: Collection[str] | None = None
    ) -> tuple[Active, bool]:
        """Put a policy in force that was so before: an id, the beginning of one, or 'packaged'.

        Raises:
            NotFound, InvalidRequest: there is no such revision, or more than one.
            Conflict: it never was in force.
            PreconditionFailed, PolicyError, StorageUnavailable: as `put`.
        """
        text, source = await asyncio.to_thread(find_target, self._store, revision)
        return await self._change(text, source, "rolled_back", why, key, matching=matching, is_new=False)

    async def reload(self, why: str, key: ApiKey, *, matching: Collection[str] | None = None) -> tuple[Active, bool]:
        """Put the file's present content in force, even where it has not changed.

        Raises:
            PreconditionFailed, PolicyError, StorageUnavailable: as `put`.
        """
        content = await asyncio.to_thread(self._file.read)
        self._note_file(content)
        details = _details(content)
        if content.text is None:
            error = content.problem or PolicyError("The policy file cannot be read.")
            async with self._lock:
                await self._refuse(Candidate("", None, error=error), error, key.key_id, why, details, key, is_file=True)
            raise error
        return await self._change(
            content.text, content.source, "in_force", why, key, matching=matching, is_new=True, details=details
        )

    async def _change(
        self,
        text: str,
        source: str,
        event: EventName,
        why: str,
        key: ApiKey,
        *,
        matching: Collection[str] | None,
        is_new: bool,
        details: dict[str, Any] | None = None,
    ) -> tuple[Active, bool]:
        _check_match(self.policies.active, matching)
        candidate = await run_aside(partial(self._admission.examine, text, source, is_new=is_new))
        async with self._lock:
            active = self.policies.active
            if candidate.error is not None:
                is_file = details is not None
                await self._refuse(candidate, candidate.error, key.key_id, why, details or {}, key, is_file=is_file)
                raise candidate.error
            _check_match(active, matching)
            proved = None if candidate.certificate is None else candidate.certificate.hash
            if candidate.policy_id == active.policy.id and proved in (None, active.certificate):
                return active, False
            # Without If-Match the newest wins, whatever another process has done that is not followed yet.
            expected = active.event.seq if matching is not None else None
            return await self._install(candidate, event, key.key_id, why, details or {}, key, expected), True

    async def _take_up(self, content: FileContent) -> None:
        self._note_file(content)
        store = self._store
        last, used = await asyncio.to_thread(lambda: (store.last_of_file(), store.last_of_file(is_taken_up=True)))
        active = self.policies.active
        if last is not None and last.event == "refused" and last.details.get("sha256") == content.mark:
            self.policies.problem = last.details.get("problem") if last.seq > active.event.seq else None
            return
        if used is not None and used.details.get("sha256") == content.mark:
            # What it had when a file last took effect: a mistake was taken back, or the same was written again.
            self.policies.problem = self.policies.refused = None
            return
        why = "The file changed."
        candidate = await run_aside(partial(self._examine, content, is_new=True))
        async with self._lock:
            error = candidate.error
            if error is None and self.policies.active.event.seq != active.event.seq:
                error = PolicyError(_OVERTAKEN)
            if error is None:
                try:
                    details = _details(content)
                    await self._install(candidate, "in_force", BY_FILE, why, details, None, active.event.seq)
                except Conflict:
                    error = PolicyError(_OVERTAKEN)
            if error is not None:
                await self._refuse(candidate, error, BY_FILE, why, _details(content), None, is_file=True)

    async def _follow(self, standing: PolicyEvent) -> None:
        candidate = await run_aside(partial(self._recall, standing))
        async with self._lock:
            active = self.policies.active
            if active.event.seq >= standing.seq:
                return
            if candidate.error is None and candidate.policy is not None:
                self._adopt(activate(candidate.policy, candidate.certificate, standing))
                return
            error = candidate.error or PolicyError("The revision cannot be read.")
            await self._refuse(candidate, error, BY_ITSELF, f"{standing.who} put it in force.", {}, None)
            # What stands in the database must be what is in force, or a restart would find the refused one.
            why = f"Kept: {standing.policy_id} was refused."
            kept = Candidate(active.policy.id, active.policy)
            also = self._describe(kept, "in_force", BY_ITSELF, why, None)
            save = partial(self._store.save, expected=standing.seq)
            event = await asyncio.to_thread(save, active.policy, None, BY_ITSELF, why, "in_force", also)
            refused = self.policies.refused
            self.policies.active = Active(active.dispatcher, active.certificate, active.proof, active.warnings, event)
            self.policies.refused = refused

    async def _install(
        self,
        candidate: Candidate,
        event: EventName,
        who: str,
        why: str,
        details: Mapping[str, Any],
        key: ApiKey | None,
        expected: int | None,
    ) -> Active:
        """Record a candidate as in force, then put it there. The lock is held."""
        policy = candidate.policy
        assert policy is not None, "what is no policy has an error"
        also = self._describe(candidate, event, who, why, key)
        save = partial(self._store.save, details=self._more(candidate, details), expected=expected)
        written = await asyncio.to_thread(save, policy, candidate.certificate, who, why, event, also)
        active = activate(policy, candidate.certificate, written)
        self._adopt(active)
        return active

    def _adopt(self, active: Active) -> None:
        self._before = active.policy.id
        self.policies.adopt(active)
        self.policies.problem = None
        self.on_adopt(active)
        if (file := self.policies.file) is not None:
            self.policies.file = {**file, "in_force": file["policy"] == active.policy.id}

    async def _refuse(
        self,
        candidate: Candidate,
        error: PolicyError,
        who: str,
        why: str,
        details: Mapping[str, Any],
        key: ApiKey | None,
        *,
        is_file: bool = False,
    ) -> None:
        """Record a refusal; what is in force stays. The lock is held."""
        also = self._describe(candidate, "refused", who, why, key, error)
        refuse = partial(
            self._store.refuse,
            policy=candidate.policy,
            certificate=candidate.certificate,
            details=self._more(candidate, details),
        )
        event = await asyncio.to_thread(refuse, candidate.policy_id, str(error), who, why, also)
        self.policies.refuse(event, is_file=is_file)

    def _begin(self, candidate: Candidate, content: FileContent, standing: PolicyEvent | None) -> Active:
        policy = candidate.policy
        assert policy is not None, "what is no policy has an error"
        why = "First start." if standing is None else "The file had changed when the gateway started."
        who = BY_ITSELF if content.source == PACKAGED else BY_FILE
        details = self._more(candidate, _details(content))
        event = self._store.save(policy, candidate.certificate, who, why, "in_force", details=details)
        return activate(policy, candidate.certificate, event)

    def _begin_refused(
        self,
        candidate: Candidate,
        error: PolicyError,
        content: FileContent,
        last: PolicyEvent | None,
        used: PolicyEvent | None,
    ) -> PolicyEvent:
        """Record that the file is refused; where it was in use before, what stood last stays in force."""
        said = {"problem": str(error), "sha256": content.mark}
        if last is None or last.event != "refused" or not said.items() <= last.details.items():
            why = "At the start of the gateway."
            also = self._describe(candidate, "refused", BY_FILE, why, None, error)
            last = self._store.refuse(
                candidate.policy_id,
                str(error),
                BY_FILE,
                why,
                also,
                policy=candidate.policy,
                certificate=candidate.certificate,
                details=self._more(candidate, _details(content)),
            )
        if used is None or used.details.get("file") != content.source:
            # Another file than before was asked for: to serve anything else would hide that from the operator.
            raise error
        return last

    def _resume(self, standing: PolicyEvent, content: FileContent) -> Active:
        if content.text is not None and policy_id(content.text) == standing.policy_id:
            candidate = self._examine(content, is_new=False)
        else:
            candidate = self._recall(standing)
        if candidate.error is not None or candidate.policy is None:
            error = candidate.error or PolicyError("The revision cannot be read.")
            way_out = "Or put another policy in force: lukhas policy rollback packaged --reason '...'"
            raise PolicyError(error.message, mistakes=error.mistakes, hint=f"{error.hint} {way_out}".strip()) from error
        return activate(candidate.policy, candidate.certificate, standing)

    def _recall(self, event: PolicyEvent) -> Candidate:
        try:
            revision = self._store.read(event.policy_id)
        except (IntegrityError, NotFound) as damaged:
            return Candidate(event.policy_id, None, error=PolicyError(damaged.message))
        return self._admission.examine(revision.text, revision.source, is_new=False)

    def _examine(self, content: FileContent, *, is_new: bool) -> Candidate:
        if content.text is None:
            return Candidate("", None, error=content.problem or PolicyError("The policy file cannot be read."))
        return self._admission.examine(content.text, content.source, is_new=is_new)

    def _describe(
        self,
        candidate: Candidate,
        event: EventName,
        who: str,
        why: str,
        key: ApiKey | None,
        error: PolicyError | None = None,
    ) -> Also:
        body = self._more(
            candidate, {"event": event, "policy": candidate.policy_id, "who": who, "why": redact_text(why)}
        )
        if candidate.policy is not None:
            body["name"] = redact_text(candidate.policy.name)
        if error is not None:
            body["problem"] = redact_text(str(error))
        return self._make_also(body, key)

    def _more(self, candidate: Candidate, details: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {**details}
        if candidate.policy is not None:
            found["proof"] = candidate.proof
        if candidate.certificate is not None:
            found["certificate"] = candidate.certificate.hash
        return found if self._before is None else {**found, "before": self._before}

    def _note_file(self, content: FileContent) -> None:
        if self._file.path is not None:
            found = None if content.text is None else policy_id(content.text)
            in_force = found == self.policies.policy.id
            self.policies.file = {"path": str(self._file.path), "policy": found, "in_force": in_force}


def find_target(store: RevisionStore, revision: str) -> tuple[str, str]:
    """Return text and source of a revision that may be rolled back to.

    Args:
        revision: an id, the beginning of one, or 'packaged'.

    Raises:
        NotFound, InvalidRequest: there is no such revision, or more than one.
        Conflict: it never was in force.
    """
    if revision == PACKAGED:
        return read_packaged_text(), PACKAGED
    found = store.read(revision)
    if not store.was_in_force(found.policy_id):
        raise Conflict(
            f"{found.policy_id} never was in force, so there is nothing to roll back to.",
            hint="Put it in force as a new policy: PUT /api/v1/policy.",
        )
    return found.text, found.source


def _is_fresh(content: FileContent, standing: PolicyEvent, last: PolicyEvent | None, used: PolicyEvent | None) -> bool:
    """Say whether the file is an event that is still to be taken up at the start.

    Args:
        last: the newest event of a file's content.
        used: the newest of those that took effect.
    """
    if last is not None and last.event == "refused" and last.details.get("sha256") == content.mark:
        # What was refused may be taken by now: the extra is installed, the setting changed.
        return last.seq > standing.seq
    if used is None or used.details.get("sha256") == content.mark:
        return used is None
    was_packaged = used.details.get("file") == PACKAGED
    # A new release's packaged policy does not displace what somebody set on purpose.
    return not (content.source == PACKAGED and was_packaged and standing.policy_id != used.policy_id)


def _check_match(active: Active, matching: Collection[str] | None) -> None:
    if matching is not None and active.policy.id not in matching:
        raise PreconditionFailed(
            f"The policy in force is {active.policy.id}, not the one that the request names.",
            hint="Read it again, then decide.",
            param="If-Match",
        )


def _details(content: FileContent) -> dict[str, Any]:
    return {"file": content.source, "sha256": content.mark}


def _nothing(active: Active) -> None:
    """Do nothing where nobody needs to know."""
