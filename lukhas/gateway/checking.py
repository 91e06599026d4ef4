"""What must be asked elsewhere before a call is decided: who owns what it names, and what a remote moderator says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from lukhas.errors import LukhasError, ModerationUnavailable, NotFound
from lukhas.gateway.equipment import Equipment
from lukhas.gateway.governing import Checked
from lukhas.moderation.moderator import Moderator, Verdict
from lukhas.moderation.rule import Point
from lukhas.openai.call import Call, Text

_NOTHING = Checked()


async def check_ahead(equipment: Equipment, call: Call, tenant: str) -> Checked:
    """Ask the store of upstream objects and the remote moderator about a call.

    A refusal is not raised but returned, so that it goes on record with the decision.

    Raises:
        StorageUnavailable: the store of upstream objects cannot be read.
    """
    moderator = equipment.moderator
    if not call.objects and (moderator is None or not call.texts):
        return _NOTHING
    denial: LukhasError | None = None
    blocked: Sequence[str] = ()
    if call.objects:
        try:
            await equipment.owners.check(call.objects, tenant)
        except NotFound as refused:
            denial = refused
            if equipment.is_shadow and await equipment.owners.has_foreign(call.objects, tenant):
                # Whose an object is, is no policy that could be tried out.
                return Checked(denial=denial, is_access=True)
        else:
            blocked = await equipment.owners.blocked_calls(call.objects)
    if denial is not None or moderator is None or not call.texts or call.dialect == "moderations":
        return Checked(denial=denial, blocked_calls=blocked)
    texts = call.texts
    try:
        verdicts = await _ask(moderator, texts, equipment)
    except ModerationUnavailable as failure:
        equipment.metrics.moderation_failures.add("input")
        required = equipment.settings.moderation_required
        return Checked(denial=failure if required else None, moderator_failed=True, blocked_calls=blocked)
    return Checked(texts=texts, verdicts=verdicts, blocked_calls=blocked)


async def _ask(moderator: Moderator, texts: Sequence[Text], equipment: Equipment) -> list[Verdict]:
    """Return a verdict for each text; of a group, which a model reads as one, the first has that of all.

    The moderator is somebody else's too: it sees no more of a secret than the model will.
    """
    preset = equipment.pick_preset("")
    verdicts: list[Verdict] = [Verdict()] * len(texts)
    for point in sorted({text.point for text in texts}):
        groups: dict[int, list[int]] = {}
        for place, text in enumerate(texts):
            if text.point == point:
                groups.setdefault(text.group, []).append(place)
        asked = [(places[0], "".join(texts[place].text for place in places)) for places in groups.values()]
        profile = equipment.rules.profile(preset, cast("Point", point))
        asked = [(place, profile.redact(text, profile.scan(text))) for place, text in asked if text.strip()]
        if asked:
            answers = await moderator.check([text for _, text in asked], cast("Point", point))
            for (place, _), verdict in zip(asked, answers, strict=True):
                verdicts[place] = verdict
    return verdicts
