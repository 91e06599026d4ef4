"""What a streamed Responses answer has been so far: its items, its objects, and the response that it will end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import ObjectRef
from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_held import HeldItem
from lukhas.openai.response_item import Item, read_object_ids, type_of
from lukhas.openai.response_live import LiveItem

_MOST_ITEMS: Final = 4096


class StreamedOutput:
    """The items of one streamed answer, open and finished.

    Attributes:
        open: items that upstream has not finished, by their place.
        objects: what upstream has made for this answer, as far as it has told.
        snapshot: the response as upstream last showed it, guarded.
    """

    def __init__(self) -> None:
        self.open: dict[int, LiveItem | HeldItem] = {}
        self.response_id: str | None = None
        self.conversation_id: str | None = None
        self.objects: list[ObjectRef] = []
        self.snapshot: Item = {}
        self._finished: list[tuple[int, str, list[Any]]] = []
        self._last_index = 0
        self._is_begun = False

    def note_response(self, answer: Item) -> None:
        """Take in what a response tells of itself."""
        refs = read_object_ids(answer)
        for ref in refs:
            if ref.kind == "response":
                self.response_id = ref.id
            elif ref.kind == "conversation":
                self.conversation_id = ref.id
        self.note_objects(refs)

    def note_objects(self, refs: Sequence[ObjectRef]) -> None:
        """Take in objects that upstream has made."""
        known = {(one.kind, one.id) for one in self.objects}
        self.objects += [ref for ref in refs if (ref.kind, ref.id) not in known]

    def place_of(self, event: Item) -> int:
        """Return which item an event belongs to: by its index, else by its id, else the one that came last."""
        index: Any = event.get("output_index")
        if isinstance(index, int):
            return index
        given: Any = event.get("item_id")
        for number, item in self.open.items():
            if given is not None and item.added.get("id") == given:
                return number
        return self._last_index

    def next_place(self) -> int:
        """Return the place behind all items so far."""
        if not self._is_begun:
            return 0
        return 1 + max([self._last_index, *self.open, *(one[0] for one in self._finished)])

    def live_for(self, event: Item, one: AnswerPass) -> LiveItem | None:
        """Return the message or reasoning that an event is about, announced or not; None where it is about another."""
        index = self.place_of(event)
        item = self.open.get(index)
        if item is None:
            given: Any = event.get("item_id")
            kind = "reasoning" if "reasoning" in event["type"] else "message"
            added: Item = {"id": given if isinstance(given, str) else f"item_{index}", "type": kind}
            item = LiveItem(index, added, one)
            self.begin(index, item)
        return item if isinstance(item, LiveItem) else None

    def begin(self, index: int, item: LiveItem | HeldItem) -> None:
        """Take in a new item; one that stands open at its place ends as far as it was released."""
        if len(self.open) + len(self._finished) >= _MOST_ITEMS:
            raise UpstreamBroken(f"The upstream sent more than {_MOST_ITEMS} items in one answer.")
        known = self.open.get(index)
        if isinstance(known, LiveItem):
            self.finish(index, known.added, [known.freeze()])
        self.open[index] = item
        self._last_index = index
        self._is_begun = True

    def finish(self, index: int, item: Item, released: list[Any]) -> None:
        """Take in what was released in the place of an item of upstream's."""
        self.open.pop(index, None)
        self._is_begun = True
        self._finished.append((index, _identify(item), released))

    def replace(self, items: list[Any]) -> None:
        """Forget every item, and take these in their place."""
        self.open.clear()
        self._finished = [(index, "", [item]) for index, item in enumerate(items)]

    def merge(self, upstream: list[Any], one: AnswerPass) -> list[Any]:
        """Return the output of the last event: what was released of each item, and what comes new in it, guarded."""
        left = sorted(self._finished, key=lambda known: known[0])
        items: list[Any] = []
        for entry in upstream:
            identity = _identify(cast("Item", entry)) if isinstance(entry, dict) else ""
            found = next((known for known in left if known[1] == identity), None)
            if found is not None:
                left.remove(found)
                items += found[2]
                continue
            live = next((item for item in self.open.values() if is_same(entry, item.added)), None)
            if isinstance(live, LiveItem):
                closed = [live.close(cast("Item", entry), one)]
                if live.hit is not None:
                    closed = live.cut(live.hit, one)
                    one.is_ended = True
                items += closed
            else:
                items += one.item(entry)
            if one.is_ended:
                break
        return items

    def cut(self, model: str | None) -> Item:
        """Return the response of an answer that a block ended, with all that was released of its items."""
        for index in sorted(self.open):
            item = self.open[index]
            if isinstance(item, LiveItem):
                self.finish(index, item.added, [item.freeze()])
        finished = sorted(self._finished, key=lambda known: known[0])
        return {
            "id": self.response_id or "resp_unknown",
            "object": "response",
            "created_at": 0,
            "model": model or "",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            **self.snapshot,
            "output": [entry for _, _, entries in finished for entry in entries],
            "usage": None,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
        }


def is_same(entry: Any, added: Item) -> bool:
    """Say whether an output item is the one that began so."""
    if not isinstance(entry, dict):
        return False
    item = cast("Item", entry)
    given = item.get("id") or item.get("call_id")
    return given is not None and given == (added.get("id") or added.get("call_id")) and type_of(item) == type_of(added)


def _identify(item: Item) -> str:
    return f"{item.get('type')} {item.get('id')} {item.get('call_id')}"
