"""Urgency: the last user text asks for haste, by its words and its form."""

from __future__ import annotations

import re
import string
from typing import Final

from lukhas.gateway.sensor.observation import Observation, Reading

# What each class of cues adds, once, however many of its cues are there.
WEIGHTS: Final = {"haste": 0.6, "outage": 0.5, "deadline": 0.35, "emphasis": 0.15, "short_answer": 0.1}
# Where the text says that there is no hurry, this much of the level is left.
CALM_SHARE: Final = 0.25
SHORT_ANSWER_TOKENS: Final = 64
# In a long text such words are more often what it is about than how it is meant.
LONG_NONE_WORDS: Final = 100
LONG_FULL_WORDS: Final = 500
LONG_SHARE: Final = 0.4

# Words that usually mean something else, in another of these languages or in a program's name, are left out.
_WORDS: Final[dict[str, frozenset[str]]] = {
    kind: frozenset(word for line in lines for word in line.split())
    for kind, lines in {
        "haste": (
            "urgent urgently urgency asap immediately hurry emergency pronto",  # English
            "dringend dringende dringendst eilig eilt sofort schnellstmöglich umgehend notfall",  # German
            "urgence urgente immédiatement",  # French
            "urgentemente inmediatamente emergencia",  # Spanish
            "imediatamente emergência depressa",  # Portuguese
            "urgenza subito immediatamente emergenza",  # Italian
            "spoed onmiddellijk meteen",  # Dutch
            "pilne pilnie natychmiast",  # Polish
            "acil hemen",  # Turkish
            "срочно срочный немедленно экстренно",  # Russian
            "терміново негайно",  # Ukrainian
            "عاجل فورا طوارئ",  # Arabic
            "긴급 급해요 즉시",  # Korean
        ),
        "outage": (
            "outage downtime sev1 p0 crashed",
            "ausfall ausgefallen störung",
            "panne awaria kesinti авария 장애",
        ),
        "deadline": ("deadline eod overdue", "frist überfällig échéance plazo prazo scadenza дедлайн 마감"),
    }.items()
}
_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "haste": (
        *("as soon as possible", "right away", "at once", "time critical", "no time to lose"),
        *("so schnell wie möglich", "dès que possible", "tout de suite", "lo antes posible", "cuanto antes"),
        *("ahora mismo", "o mais rápido possível", "agora mesmo", "il prima possibile", "zo snel mogelijk"),
        *("jak najszybciej", "как можно скорее", "прямо сейчас"),
    ),
    "outage": (
        *("production is down", "prod is down", "site is down", "website is down", "server is down"),
        *("service is down", "system is down", "everything is down", "production down", "prod down"),
        *("not responding", "sev 1", "losing data", "losing money", "losing customers", "data loss"),
        *("nicht erreichbar", "hors service", "en panne", "fuera de servicio", "fora do ar", "fuori servizio"),
        *("не работает", "nie działa"),
    ),
    "deadline": (
        *("right now", "due today", "due tomorrow", "end of day", "end of business", "by tomorrow", "by tonight"),
        *("by noon", "by monday", "by friday", "within the hour"),
        *("bis heute", "bis morgen", "bis montag", "bis freitag", "d'ici demain", "avant demain", "para hoy"),
        *("para mañana", "até amanhã", "para amanhã", "entro domani", "entro oggi", "voor morgen", "do jutra"),
        *("до завтра", "к завтра"),
    ),
    "calm": (
        *("not urgent", "isn't urgent", "no rush", "no hurry", "take your time", "whenever you can"),
        *("not an emergency", "nicht dringend", "keine eile", "eilt nicht", "pas urgent", "rien ne presse"),
        *("no es urgente", "sin prisa", "não é urgente", "sem pressa", "non è urgente", "senza fretta"),
        *("geen haast", "niet dringend", "не срочно", "nie pilne", "acil değil"),
    ),
}
# Scripts without blanks between words.
_UNSPACED: Final[dict[str, tuple[str, ...]]] = {
    "haste": ("紧急", "緊急", "尽快", "盡快", "马上", "立刻", "立即", "至急", "今すぐ", "急いで", "ด่วน"),
    "outage": ("宕机", "故障", "障害", "ระบบล่ม"),
    "deadline": ("截止", "期限", "締め切り", "締切"),
    "calm": ("不急", "不着急", "急がなくて", "急ぎません", "ไม่ด่วน"),
}
_ALL_WORDS: Final = frozenset[str]().union(*_WORDS.values())


def _index_phrases() -> dict[str, tuple[tuple[str, re.Pattern[str]], ...]]:
    # By its longest word, which few texts hold: a phrase is looked for only where that one stands.
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for kind, phrases in _PHRASES.items():
        for phrase in phrases:
            rarest = max(phrase.split(), key=len)
            found.setdefault(rarest, []).append((kind, re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")))
    return {word: tuple(entries) for word, entries in found.items()}


_PHRASES_BY_WORD: Final = _index_phrases()
_CAPITALS: Final = string.ascii_uppercase.encode()
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class UrgencySensor:
    """Reads urgency from the request. Deterministic, from a small lexicon in a dozen languages."""

    name = "urgency"
    signal = "urgency"

    def sense(self, observation: Observation) -> Reading | None:
        """Return 1 - product of (1 - weight of each class of cues found), less in long texts; None without a text."""
        prompt = observation.prompt
        if not prompt.strip():
            return None
        found = _find_words(observation)
        if _is_emphatic(prompt, len(observation.words)):
            found.add("emphasis")
        if _wants_short_answer(observation):
            found.add("short_answer")
        rest = 1.0
        for kind, weight in WEIGHTS.items():
            if kind in found:
                rest *= 1.0 - weight
        length = min(1.0, max(0.0, (len(observation.words) - LONG_NONE_WORDS) / (LONG_FULL_WORDS - LONG_NONE_WORDS)))
        level = (1.0 - rest) * (1.0 - (1.0 - LONG_SHARE) * length) * (CALM_SHARE if "calm" in found else 1.0)
        return Reading(level, {"cues": sorted(found)})


def _find_words(observation: Observation) -> set[str]:
    found: set[str] = set()
    lowered = observation.lowered
    words = set(observation.words)
    for word in words & _ALL_WORDS:
        found |= {kind for kind, known in _WORDS.items() if word in known}
    for word in words & _PHRASES_BY_WORD.keys():
        found |= {kind for kind, phrase in _PHRASES_BY_WORD[word] if kind not in found and phrase.search(lowered)}
    if not lowered.isascii():
        found |= {kind for kind, parts in _UNSPACED.items() if any(part in lowered for part in parts)}
    return found


def _is_emphatic(prompt: str, words: int) -> bool:
    if prompt.count("!") + prompt.count("！") >= 2:
        return True
    # A word in capitals is often a name; three of them that make up half of the text are a raised voice.
    if prompt.isascii() and len(prompt) - len(prompt.encode().translate(None, _CAPITALS)) < words:
        return False
    pieces = prompt.split()
    shouted = sum(piece.isupper() and len(piece) > 1 for piece in pieces)
    return shouted >= 3 and 2 * shouted >= len(pieces)


def _wants_short_answer(observation: Observation) -> bool:
    body = observation.call.body
    limits = [body.get(name) for name in _LIMITS]
    # True is an int to Python, and no number of tokens.
    return any(type(limit) is int and 0 < limit <= SHORT_ANSWER_TOKENS for limit in limits)
