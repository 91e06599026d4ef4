"""Messages and reasoning of a Responses stream: released as they come, and closed with what was released."""

from __future__ import annotations

from typing import Any, cast

from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_item import Item, refusal_part, type_of
from lukhas.openai.response_run import PARTS, Run

Place = tuple[str, int]


class LiveItem:
    """One message or reasoning item that is being written.

    Attributes:
        index: its place in the output.
        added: the item as upstream began it.
        opened: the same, guarded, without any part that has not come in its own event.
        runs: the text of its parts, by the field that holds the part and its place there.
        parts: the other fields of its parts as they were released.
        hit: the part that `close` found blocked.
    """

    __slots__ = ("added", "hit", "index", "opened", "parts", "runs")

    def __init__(self, index: int, added: Item, one: AnswerPass) -> None:
        self.index = index
        self.added = added
        self.runs: dict[Place, Run] = {}
        self.parts: dict[Place, Item] = {}
        self.hit: Place | None = None
        opened: Item = added
        for name, value in added.items():
            new: Any = value
            if name in ("content", "summary"):
                new = cast("list[Any]", []) if value else value
            elif name != "encrypted_content":
                new = one.tree(value, name)
            if new is not value:
                opened = {**opened, name: new}
        self.opened = opened

    def finish_run(self, place: Place) -> Item | None:
        """End a run, and return the event that releases the rest of it; None where nothing is left."""
        run = self.runs[place]
        out, entries = run.finish()
        if not out and not entries:
            return None
        event: Item = {
            "type": run.form.delta,
            "item_id": self.added.get("id"),
            "output_index": self.index,
            run.form.index: place[1],
            "delta": out,
        }
        return {**event, "logprobs": entries} if run.form.kind == "text" else event

    def open_part(self, place: Place, part: Item, one: AnswerPass) -> Item:
        """Return a part as it begins; text that stands in it already is the first piece of its run."""
        run = self.runs.get(place)
        text: Any = None if run is None else part.get(run.form.field)
        if run is None or not isinstance(text, str):
            return cast("Item", one.tree(part))
        released = run.feed(text) if text else text
        opened = cast("Item", one.part({**part, "logprobs": []} if part.get("logprobs") else part, released))
        self.parts[place] = opened
        return opened

    def close_logprobs(self, event: Item, run: Run, one: AnswerPass, *, is_whole: bool) -> Item:
        """Return a `.done` event with its logprobs, or none where anything in the run was changed."""
        given: Any = event.get("logprobs")
        if not given:
            return event
        kept: Any = one.logprobs(cast("list[Any]", given)) if is_whole and isinstance(given, list) else []
        one.take_hit()
        if run.logprobs is not None and run.logprobs.is_dropped:
            kept = []
        return event if kept is given else {**event, "logprobs": kept}

    def close_part(self, place: Place, part: Any, one: AnswerPass) -> Any:
        """Return a part as upstream finished it, with what was released of its text."""
        fields: Item = cast("Item", part) if isinstance(part, dict) else {}
        run = self.runs.get(place)
        form = PARTS.get(type_of(fields))
        released: str | None = None
        if run is not None and form is not None and run.form is form:
            text: Any = fields.get(form.field)
            if isinstance(text, str) and run.matches(text):
                released = run.text
        new: Any
        if place[0] == "summary" or type_of(self.added) == "reasoning":
            new = one.reasoning_part(part, released)
        else:
            new = one.part(part, released)
            if run is not None and run.logprobs is not None and run.logprobs.is_dropped and new.get("logprobs"):
                new = {**cast("Item", new), "logprobs": cast("list[Any]", [])}
        if isinstance(new, dict):
            self.parts[place] = cast("Item", new)
        return cast("Any", new)

    def close(self, item: Item, one: AnswerPass) -> Item:
        """Return the item as upstream finished it, with what was released; `hit` then names a blocked part."""
        changed = item
        for name, value in item.items():
            new: Any = value
            if name in ("content", "summary") and isinstance(value, list):
                parts: list[Any] = []
                for number, part in enumerate(cast("list[Any]", value)):
                    parts.append(self.close_part((name, number), part, one))
                    if one.take_hit():
                        self.hit = (name, number)
                        return item
                if any(n is not o for n, o in zip(parts, cast("list[Any]", value), strict=True)):
                    new = parts
            elif name in ("content", "summary") and isinstance(value, str):
                run = self.runs.get((name, 0))
                new = run.text if run is not None and run.matches(value) else one.text("text", value)
            elif name != "encrypted_content":
                new = one.tree(value, name)
            if one.take_hit():
                self.hit = (name if name in ("content", "summary") else "content", self._next_part())
                return item
            if new is not value:
                changed = {**changed, name: new}
        return changed

    def cut(self, place: Place | None, one: AnswerPass) -> list[Item]:
        """Return what is left of the item, whose part at `place` was blocked: with a refusal in it, or behind it."""
        base = {**self.opened, "status": "incomplete"}
        if type_of(self.added) == "reasoning":
            for name in ("summary", "content"):
                if name == "summary" or any(key[0] == name for key in self.parts | self.runs):
                    base[name] = self._released_parts(name)
            return one.cut_reasoning(base)
        before = self._released_parts("content", None if place is None else place[1])
        return [{**base, "role": base.get("role", "assistant"), "content": [*before, refusal_part(one.refusal)]}]

    def freeze(self) -> Item:
        """Return the item as far as it was released."""
        base = {**self.opened, "status": "incomplete"}
        for name in ("summary", "content"):
            parts = self._released_parts(name)
            if parts or name in base:
                base[name] = parts
        return base

    def closing(self, items: list[Item], place: Place | None) -> list[Item]:
        """Return the events that close the item after a block, and those of the refusal that follows it."""
        item = items[0]
        common: Item = {"item_id": item.get("id"), "output_index": self.index}
        done: Item = {"type": "response.output_item.done", "output_index": self.index, "item": item}
        if type_of(item) != "reasoning":
            index = len(cast("list[Any]", item["content"])) - 1
            return [*_refusal_events({**common, "content_index": index}, cast("list[Item]", item["content"])[-1]), done]
        events: list[Item] = []
        run = None if place is None else self.runs.get(place)
        if run is not None and place is not None:
            at: Item = {**common, run.form.index: place[1]}
            kind = "response.reasoning_summary_part.done" if place[0] == "summary" else "response.content_part.done"
            part = {"type": run.form.part, "text": run.text}
            events = [{"type": run.form.done, **at, "text": run.text}, {"type": kind, **at, "part": part}]
        return [*events, done, *refuse_item(self.index + 1, items[1])]

    def _next_part(self) -> int:
        return 1 + max((place[1] for place in self.runs if place[0] == "content"), default=-1)

    def _released_parts(self, name: str, before: int | None = None) -> list[Item]:
        parts: list[Item] = []
        for place in sorted(key for key in self.parts | self.runs if key[0] == name):
            if before is not None and place[1] >= before:
                break
            run = self.runs.get(place)
            part = self.parts.get(place)
            if run is not None:
                empty: Item = {"type": run.form.part, run.form.field: "", "annotations": []}
                if run.form.kind != "text":
                    del empty["annotations"]
                part = {**(part or empty), run.form.field: run.text}
            if part is not None:
                parts.append(part)
        return parts


def refuse_item(index: int, item: Item) -> list[Item]:
    """Return the events of a message that holds one refusal."""
    part = cast("list[Item]", item["content"])[0]
    common: Item = {"item_id": item["id"], "output_index": index, "content_index": 0}
    opened: Item = {**item, "status": "in_progress", "content": cast("list[Any]", [])}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": opened},
        *_refusal_events(common, part),
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _refusal_events(at: Item, part: Item) -> list[Item]:
    text = part["refusal"]
    return [
        {"type": "response.content_part.added", **at, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **at, "delta": text},
        {"type": "response.refusal.done", **at, "refusal": text},
        {"type": "response.content_part.done", **at, "part": part},
    ]
