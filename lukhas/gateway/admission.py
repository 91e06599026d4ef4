"""May this policy take effect? It is read, its proof is looked up or made, and the settings have the last word.

Everything here blocks, and a proof can take a minute: `run_aside` keeps it away from the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import msgspec

from lukhas.errors import IntegrityError, PolicyError
from lukhas.gateway.policy_file import PACKAGED
from lukhas.modulation.certificate import Certificate, packaged_certificate
from lukhas.modulation.policy import Policy, policy_id
from lukhas.modulation.policy_reader import parse_policy
from lukhas.modulation.revision import RevisionStore

R = TypeVar("R")
UNPROVED: Final = "not proved"
_SHOWN: Final = 3


class Prove(Protocol):
    """`lukhas.modulation.prover.prove`, or a test's stand-in."""

    def __call__(self, text: str, *, source: str, deadline_s: float) -> Certificate:
        """Prove a policy's text; a timeout gives 'not proved'."""
        ...


class Candidate(msgspec.Struct, frozen=True):
    """A policy on its way, and the verdict.

    Attributes:
        policy_id: the text's id, whether or not it is a policy.
        policy: None where the text is none.
        certificate: what is known of its proof; None where no proof was tried.
        error: why it may not take effect; None where it may.
    """

    policy_id: str
    policy: Policy | None
    certificate: Certificate | None = None
    error: PolicyError | None = None

    @property
    def proof(self) -> str:
        """'proved', 'not proved' or 'refuted'."""
        return UNPROVED if self.certificate is None else self.certificate.result


class Admission:
    """Decides which policies may take effect.

    Args:
        store: where certificates are kept.
        require_proof: whether what is not proved is refused; what is refuted always is.
        timeout_s: longest time for one proof; 0 tries none.
        prove: the prover; the real one where None.
        on_proof: told which policy is about to be proved, since that can take its time.
    """

    def __init__(
        self,
        store: RevisionStore,
        *,
        require_proof: bool,
        timeout_s: float,
        prove: Prove | None = None,
        on_proof: Callable[[Policy], None] | None = None,
    ) -> None:
        self._store = store
        self._require_proof = require_proof
        self._timeout_s = timeout_s
        self._prove = prove
        self._on_proof = on_proof or _say_nothing
        self._made: Certificate | None = None

    def examine(self, text: str, source: str, *, is_new: bool) -> Candidate:
        """Read a policy, and find or make its proof.

        Args:
            source: where it came from, for messages.
            is_new: a proof that could not be had before is tried again.
        """
        try:
            policy = parse_policy(text, source)
        except PolicyError as wrong:
            return Candidate(policy_id(text), None, error=wrong)
        certificate = self._find(policy)
        undecided = certificate is None or certificate.result == UNPROVED
        # A proof that could not be had is not tried at every start, nor is the packaged policy's, which ships with it.
        is_tried = self._require_proof or (is_new and source != PACKAGED)
        if undecided and is_tried and self._timeout_s > 0:
            certificate = self._make(policy)
        return Candidate(policy.id, policy, certificate, self._judge(policy, certificate))

    def _find(self, policy: Policy) -> Certificate | None:
        found = self._store.find_certificate(policy.id)
        if found is not None and found.sha256 == policy.sha256:
            return found
        try:
            packaged = packaged_certificate()
        except (OSError, IntegrityError):
            return None  # a damaged installation has no proof, and says so like any other
        return packaged if packaged.sha256 == policy.sha256 else None

    def _make(self, policy: Policy) -> Certificate:
        made = self._made
        if made is not None and made.sha256 == policy.sha256 and made.result != UNPROVED:
            return made  # it could not be stored, and the change is tried again
        prove = self._prove or _find_prover()
        self._on_proof(policy)
        made = self._made = prove(policy.text, source=policy.source, deadline_s=self._timeout_s)
        return made

    def _judge(self, policy: Policy, certificate: Certificate | None) -> PolicyError | None:
        if certificate is not None and certificate.result == "refuted":
            wrong = [one.text for one in certificate.statements if one.result == "refuted"]
            shown = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
            return PolicyError(
                f"The policy {policy.id} is refuted and does not take effect. It does not hold that: {shown}.",
                hint="See where it fails: lukhas policy verify FILE",
            )
        if self._require_proof and (certificate is None or certificate.result != "proved"):
            why = "no proof was tried" if certificate is None else _say_open(certificate)
            return PolicyError(
                f"The policy {policy.id} is not proved, and LUKHAS_POLICY_REQUIRE_PROOF asks for a proof: {why}.",
                hint="Install the extra (pip install 'lukhas-pwm[verify]'), give it more time with "
                "LUKHAS_POLICY_PROOF_TIMEOUT_S, or look at it with: lukhas policy verify FILE",
            )
        return None


def _say_open(certificate: Certificate) -> str:
    """Return what a proof left open, and why as its last warning has it."""
    open_ones = [one for one in certificate.statements if one.result == UNPROVED]
    said = [f"{len(open_ones)} of {len(certificate.statements)} statements are open"] if certificate.statements else []
    return "; ".join([*said, *certificate.warnings[-1:]]) or "nothing was proved"


def _say_nothing(policy: Policy) -> None:
    """Do nothing where nobody waits."""


def _find_prover() -> Prove:
    # Imported where a proof is made: a start whose policy is proved already needs no solver.
    from lukhas.modulation.prover import prove

    return prove


async def run_aside(work: Callable[[], R]) -> R:
    """Run blocking work in a thread that the process does not wait for at its end, as a pool's would be."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is None:
            future.set_result(result)  # pyright: ignore[reportArgumentType] - a result there is, where none failed
        else:
            future.set_exception(failure)

    def run() -> None:
        result: R | None = None
        failed: BaseException | None = None
        try:
            result = work()
        except BaseException as failure:  # noqa: BLE001 - handed to whoever awaits it
            failed = failure
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more

    threading.Thread(target=run, name="policy-proof", daemon=True).start()
    return await future
