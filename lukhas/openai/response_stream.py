"""Guards a streamed Responses answer: text is released as it comes, tool calls when they are whole and judged.

Reference: `openai.types.responses.ResponseStreamEvent`. Texts stand several times in a stream (`.delta`, `.done`,
`content_part.done`, `output_item.done`, `response.completed`): all but the first hold exactly what was released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import AnswerGuard, ObjectRef, Summary
from lukhas.openai.response_answer import close_response, summarise_response
from lukhas.openai.response_event import KEEP_ALIVE, EventWriter, read_event
from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_held import HeldItem, is_live
from lukhas.openai.response_item import Item, read_item_ids, read_object_ids, refusal_item, type_of
from lukhas.openai.response_live import LiveItem, refuse_item
from lukhas.openai.response_loose import LooseStrings
from lukhas.openai.response_run import DELTAS, DONES, PARTS, Run, RunForm, index_of
from lukhas.openai.sse import event_data, is_done

_LIFECYCLE: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
_ENDINGS: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_DELTA_FIELDS: Final = frozenset(
    {"type", "sequence_number", "item_id", "output_index", "content_index", "summary_index", "delta", "obfuscation"}
    | {"logprobs"}
)
_JUDGED_FIELDS: Final = ("item", "arguments", "input", "code", "command")
_PART_EVENTS: Final = {
    "response.content_part.added": ("content", "content_index"),
    "response.content_part.done": ("content", "content_index"),
    "response.reasoning_summary_part.added": ("summary", "summary_index"),
    "response.reasoning_summary_part.done": ("summary", "summary_index"),
}


class ResponseRewriter:
    """Guards one streamed answer; see `lukhas.openai.call.StreamRewriter`.

    Attributes:
        response_id, conversation_id: of the answer; None until upstream has said them.
        objects: what upstream has made for this answer, as far as it has told.
    """

    def __init__(self, guard: AnswerGuard, summary: Summary) -> None:
        self.is_over = False
        self.is_blocked = False
        self.has_error = False
        self.response_id: str | None = None
        self.conversation_id: str | None = None
        self.objects: list[ObjectRef] = []
        self._guard = guard
        self._summary = summary
        self._pass = AnswerPass(guard)
        self._writer = EventWriter()
        self._loose = LooseStrings(guard, self._pass)
        self._runs: dict[tuple[str, Any, Any], Run] = {}
        self._items: dict[int, LiveItem | HeldItem] = {}
        self._finished: list[tuple[int, str, list[Any]]] = []
        self._last_index = 0
        self._snapshot: Item | None = None
        self._last = b""
        self._out: list[bytes] = []
        takers: dict[str, Callable[[bytes, Item, bool], None]] = {
            "response.output_item.added": self._take_added,
            "response.output_item.done": self._take_item_done,
            "response.output_text.annotation.added": self._take_annotation,
            "response.audio.delta": self._take_audio,
            "error": self._take_error,
        }
        takers |= dict.fromkeys(DONES, self._take_text_done)
        takers |= dict.fromkeys(_PART_EVENTS, self._take_part)
        takers |= dict.fromkeys(_LIFECYCLE, self._take_lifecycle)
        takers |= dict.fromkeys(_ENDINGS, self._take_ending)
        self._takers = takers

    @property
    def blocked_calls(self) -> list[str]:
        """Ids of the tool calls that did not pass; upstream's stored answer still holds them."""
        return self._pass.blocked_calls

    def take(self, raw: bytes) -> Sequence[bytes]:
        """Take one whole event and return the events to release now.

        Raises:
            UpstreamBroken: what cannot be read cannot be guarded, and is not passed on.
        """
        if self.is_over:
            return ()
        self._writer.note(raw)
        if b"[DONE]" in raw and is_done(event_data(raw)):
            return self._take_done()
        event, is_plain = read_event(raw)
        if event is None:
            # A comment keeps the connection alive; what it says is nobody's to read.
            return (KEEP_ALIVE,)
        form = DELTAS.get(event["type"])
        if form is not None:
            delta: Any = event.get("delta")
            run = self._runs.get((form.delta, event.get("output_index"), event.get(form.index)))
            if run is not None and isinstance(delta, str) and not run.is_finished:
                out = run.feed(delta)
                if out == delta and not event.get("logprobs") and event.keys() <= _DELTA_FIELDS and not run.is_blocked:
                    return (self._writer.pass_on(raw, event, is_plain=is_plain),)
                self._release_delta(run, event, out)
            else:
                self._take_first_delta(form, event)
        else:
            self._takers.get(event["type"], self._take_other)(raw, event, is_plain)
        return self._drain()

    def flush(self) -> Sequence[bytes]:
        """Return the held rest of every open run; what is blocked by it ends as it would have before."""
        if not self.is_over:
            self._finish_all()
        return self._drain()

    def stop(self, refusal: str) -> Sequence[bytes]:
        """End the answer here, as a moderator wants it that judged text after this guard.

        Nobody knows here which of the last events the caller has got, so the last one holds the refusal alone.
        """
        self._out.clear()
        self._items.clear()
        index = 1 + max([self._last_index, *(one[0] for one in self._finished)], default=-1)
        item = refusal_item({}, refusal, status="incomplete")
        self._finished = [(index, "", [item])]
        for event in refuse_item(index, item):
            self._emit(event)
        self._cut()
        return self._drain()

    def end(self) -> bytes:
        """Return the last event; empty where upstream's stream broke off before it."""
        return self._last

    def _drain(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def _emit(self, event: Item) -> None:
        self._out.append(self._writer.write(event))

    def _relay(self, raw: bytes, old: Item, new: Item, is_plain: bool) -> None:
        same = new is old
        self._out.append(self._writer.pass_on(raw, old, is_plain=is_plain) if same else self._writer.write(new))

    def _take_done(self) -> Sequence[bytes]:
        self._finish_all()
        if not self.is_over:
            self.is_over = True
            self._last = b"data: [DONE]\n\n"
        return self._drain()

    # Items

    def _take_lifecycle(self, raw: bytes, event: Item, is_plain: bool) -> None:
        response: Any = event.get("response")
        if not isinstance(response, dict):
            raise UpstreamBroken(f"The upstream sent {event['type']} without a response.")
        answer = cast("Item", response)
        self._note_ids(answer)
        self._note_objects(read_object_ids(answer))
        if answer.get("tools") is not None:
            self._pass.tools = answer["tools"]
        fields = self._pass.envelope(answer)
        output: Any = answer.get("output")
        if output:
            items: list[Any] = []
            for entry in cast("list[Any]", output) if isinstance(output, list) else [output]:
                items += self._pass.item(entry)
                if self._pass.is_ended:
                    break
            if items != output:
                fields = {**fields, "output": items}
        if fields.get("output_text"):
            fields = {**fields, "output_text": ""}
        self._snapshot = fields
        new = event if fields is answer else {**event, "response": fields}
        self._relay(raw, event, self._guard_rest(new, "response"), is_plain)
        summarise_response(answer, self._summary)
        self._summary.finish_reasons.pop(0, None)
        if self._pass.is_ended:
            self._finished = [(index, "", [item]) for index, item in enumerate(cast("list[Any]", fields["output"]))]
            self._cut()

    def _note_ids(self, answer: Item) -> None:
        given: Any = answer.get("id")
        if isinstance(given, str):
            self.response_id = given
        conversation: Any = answer.get("conversation")
        if isinstance(conversation, dict):
            conversation = cast("Item", conversation).get("id")
        if isinstance(conversation, str):
            self.conversation_id = conversation

    def _note_objects(self, refs: Sequence[ObjectRef]) -> None:
        known = {(one.kind, one.id) for one in self.objects}
        self.objects += [ref for ref in refs if (ref.kind, ref.id) not in known]

    def _guard_rest(self, event: Item, *known: str) -> Item:
        """Return an event with the fields guarded that this dialect does not know."""
        new = event
        for name, value in event.items():
            if isinstance(value, (str, dict, list)) and name not in _DELTA_FIELDS and name not in known:
                guarded = self._pass.tree(value, name)
                if self._pass.take_hit():
                    guarded = None
                if guarded is not value:
                    new = {**new, name: guarded}
        return new

    def _index(self, event: Item) -> int:
        """Return which item an event belongs to: by its index, else by its id, else the one that came last."""
        index: Any = event.get("output_index")
        if isinstance(index, int):
            return index
        given: Any = event.get("item_id")
        for number, item in self._items.items():
            if given is not None and item.added.get("id") == given:
                return number
        return self._last_index

    def _take_added(self, raw: bytes, event: Item, is_plain: bool) -> None:
        item: Any = event.get("item")
        if not isinstance(item, dict):
            self._take_other(raw, event, is_plain)
            return
        index: Any = event.get("output_index")
        if not isinstance(index, int):
            index = max([self._last_index, *(number for number, _, _ in self._finished)], default=-1)
            index += 1 if self._items or self._finished else 0
        self._last_index = index
        if not is_live(item):
            self._items[index] = HeldItem(index, event, raw)
            return
        for key in [key for key in self._runs if key[1] == index]:
            # A server that gives all its items the same index.
            del self._runs[key]
        live = LiveItem(index, cast("Item", item), self._pass)
        self._items[index] = live
        is_hit = self._pass.take_hit()
        new = event if live.opened is item else {**event, "item": live.opened}
        self._relay(raw, event, self._guard_rest(new, "item"), is_plain)
        if is_hit:
            self._block(live, None)

    def _live(self, event: Item) -> LiveItem | None:
        index = self._index(event)
        item = self._items.get(index)
        if item is None:
            # Deltas of an item that upstream never announced.
            given: Any = event.get("item_id")
            kind = "reasoning" if "reasoning" in event["type"] else "message"
            added: Item = {"id": given if isinstance(given, str) else f"item_{index}", "type": kind}
            item = self._items[index] = LiveItem(index, added, self._pass)
            self._last_index = index
        return item if isinstance(item, LiveItem) else None

    def _take_item_done(self, raw: bytes, event: Item, is_plain: bool) -> None:
        item: Any = event.get("item")
        if not isinstance(item, dict):
            self._take_other(raw, event, is_plain)
            return
        index = self._index(event)
        self._note_objects(read_item_ids(item, index))
        known = self._items.pop(index, None)
        if isinstance(known, LiveItem) and is_live(item):
            self._items[index] = known
            self._finish_item(known)
            if self.is_over:
                return
            new = known.close(cast("Item", item), self._pass)
            if known.hit is not None:
                self._block(known, known.hit)
                return
            del self._items[index]
            self._finished.append((index, _identity(cast("Item", item)), [new]))
            changed = event if new is item else {**event, "item": new}
            self._relay(raw, event, self._guard_rest(changed, "item"), is_plain)
            return
        self._release_whole(
            index, cast("Item", item), known if isinstance(known, HeldItem) else None, (raw, event, is_plain)
        )

    def _release_whole(
        self, index: int, item: Item, held: HeldItem | None, done: tuple[bytes, Item, bool] | None
    ) -> None:
        """Judge an item that is whole now, and release it with all its events, or the refusal in its place."""
        guarded = self._pass.item(item)
        new = cast("Item", guarded[0])
        self._finished.append((index, _identity(item), guarded))
        if type_of(new) != type_of(item):
            for refusal in refuse_item(index, new):
                self._emit(refusal)
        else:
            if held is not None:
                for raw, event, is_plain in held.release(new, self._pass):
                    if is_plain is None:
                        self._emit(self._guard_rest(event, *_JUDGED_FIELDS))
                    elif not self.is_over:
                        self._relay_loose(raw, event, is_plain)
            if self.is_over:
                return
            if done is not None:
                raw, event, is_plain = done
                changed = event if new is item else {**event, "item": new}
                self._relay(raw, event, self._guard_rest(changed, "item"), is_plain)
            else:
                self._emit({"type": "response.output_item.done", "output_index": index, "item": new})
        for offset, extra in enumerate(guarded[1:], start=1):
            for refusal in refuse_item(index + offset, cast("Item", extra)):
                self._emit(refusal)
        if self._pass.is_ended:
            self._cut()

    # Runs of text

    def _take_first_delta(self, form: RunForm, event: Item) -> None:
        live = self._live(event)
        delta: Any = event.get("delta")
        if live is None or not isinstance(delta, str):
            self._take_other(b"", event, False)
            return
        part = index_of(event, form)
        run = live.runs.get((form.place, part))
        if run is None:
            run = self._open_run(live, form, part)
        if run.is_finished:
            raise UpstreamBroken("The upstream went on with a text that had ended.")
        self._release_delta(run, event, run.feed(delta))

    def _open_run(self, live: LiveItem, form: RunForm, part: int) -> Run:
        run = live.runs[form.place, part] = Run(form, self._guard)
        self._runs[form.delta, live.index, part] = run
        return run

    def _release_delta(self, run: Run, event: Item, out: str) -> None:
        given: Any = event.get("logprobs")
        entries = run.feed_logprobs(cast("list[Any]", given)) if isinstance(given, list) and given else []
        if out or entries:
            new = {name: value for name, value in event.items() if name != "obfuscation"}
            new["delta"] = out
            if given is not None:
                new["logprobs"] = entries
            self._emit(self._guard_rest(new))
        if run.is_blocked:
            live = self._live(event)
            if live is not None:
                self._block(live, (run.form.place, index_of(event, run.form)))

    def _finish_run(self, live: LiveItem, place: tuple[str, int]) -> None:
        """Release the rest of a run, as one more delta."""
        run = live.runs[place]
        out, entries = run.finish()
        form = run.form
        if out or entries:
            event: Item = {
                "type": form.delta,
                "item_id": live.added.get("id"),
                "output_index": live.index,
                form.index: place[1],
                "delta": out,
            }
            if form.kind == "text":
                event["logprobs"] = entries
            self._emit(event)
        if run.is_blocked:
            self._block(live, place)

    def _finish_item(self, live: LiveItem) -> None:
        for place in sorted(live.runs):
            if not self.is_over:
                self._finish_run(live, place)

    def _finish_all(self) -> None:
        for index in sorted(self._items):
            item = self._items[index]
            if isinstance(item, LiveItem) and not self.is_over:
                self._finish_item(item)
        if not self.is_over:
            for event in self._loose.finish():
                self._emit(event)
            if self._loose.is_blocked:
                self._block(None, None)

    def _settle(self, live: LiveItem, form: RunForm, part: int, text: str) -> bool:
        """Finish a run whose whole text upstream repeats; return whether the answer goes on."""
        place = (form.place, part)
        if place not in live.runs:
            self._open_run(live, form, part).settle(text, self._pass.text(form.kind, text))
        else:
            self._finish_run(live, place)
            run = live.runs[place]
            if not self.is_over and not run.matches(text):
                run.settle(text, self._pass.text(form.kind, text))
        if self._pass.take_hit():
            self._block(live, place)
        return not self.is_over

    def _take_text_done(self, raw: bytes, event: Item, is_plain: bool) -> None:
        form = DONES[event["type"]]
        live = self._live(event)
        text: Any = event.get(form.field)
        if live is None or not isinstance(text, str):
            self._take_other(raw, event, is_plain)
            return
        part = index_of(event, form)
        if not self._settle(live, form, part, text):
            return
        run = live.runs[form.place, part]
        new = event if run.text == text else {**event, form.field: run.text}
        new = self._with_logprobs(new, run, is_whole=new is event)
        self._relay(raw, event, self._guard_rest(new, form.field), is_plain)

    def _with_logprobs(self, holder: Item, run: Run, *, is_whole: bool) -> Item:
        given: Any = holder.get("logprobs")
        if not given:
            return holder
        kept: Any = self._pass.logprobs(cast("list[Any]", given)) if is_whole and isinstance(given, list) else []
        self._pass.take_hit()
        if run.logprobs is not None and run.logprobs.is_dropped:
            kept = []
        return holder if kept is given else {**holder, "logprobs": kept}

    def _take_part(self, raw: bytes, event: Item, is_plain: bool) -> None:
        place, field = _PART_EVENTS[event["type"]]
        live = self._live(event)
        part: Any = event.get("part")
        if live is None or not isinstance(part, dict):
            self._take_other(raw, event, is_plain)
            return
        fields = cast("Item", part)
        index: Any = event.get(field)
        number = index if isinstance(index, int) else 0
        form = PARTS.get(type_of(fields))
        text: Any = fields.get(form.field) if form is not None else None
        if event["type"].endswith(".added"):
            new = self._open_part(live, (place, number), fields, form)
        else:
            if form is not None and isinstance(text, str) and not self._settle(live, form, number, text):
                return
            new = live.close_part((place, number), fields, self._pass)
        is_hit = self._pass.take_hit()
        if is_hit and event["type"].endswith(".done"):
            self._block(live, (place, number))
            return
        changed = event if new is part else {**event, "part": new}
        self._relay(raw, event, self._guard_rest(changed, "part"), is_plain)
        if is_hit or ((run := live.runs.get((place, number))) is not None and run.is_blocked):
            self._block(live, (place, number))

    def _open_part(self, live: LiveItem, place: tuple[str, int], part: Item, form: RunForm | None) -> Item:
        """Return a part as it begins; text that stands in it already is the first piece of its run."""
        text: Any = part.get(form.field) if form is not None else None
        if form is None or not isinstance(text, str):
            return cast("Item", self._pass.tree(part))
        run = self._open_run(live, form, place[1])
        released = run.feed(text) if text else text
        opened = cast("Item", self._pass.part({**part, "logprobs": []} if part.get("logprobs") else part, released))
        live.parts[place] = opened
        return opened

    # Everything else

    def _take_annotation(self, raw: bytes, event: Item, is_plain: bool) -> None:
        live = self._live(event)
        guarded = self._pass.tree(event.get("annotation"), "annotation")
        if self._pass.take_hit() and live is not None:
            index: Any = event.get("content_index")
            self._block(live, ("content", index if isinstance(index, int) else 0))
            return
        new = event if guarded is event.get("annotation") else {**event, "annotation": guarded}
        self._relay(raw, event, self._guard_rest(new, "annotation"), is_plain)

    def _take_audio(self, raw: bytes, event: Item, is_plain: bool) -> None:
        if self._pass.admit("audio"):
            self._relay(raw, event, self._guard_rest(event, "delta"), is_plain)

    def _take_error(self, raw: bytes, event: Item, is_plain: bool) -> None:
        self._finish_all()
        if self.is_over:
            return
        self.has_error = self.is_over = True
        new = event
        for name, value in event.items():
            guarded = self._pass.tree(value, name)
            if self._pass.take_hit():
                guarded = self._pass.refusal if name == "message" else {"message": self._pass.refusal}
            if guarded is not value:
                new = {**new, name: guarded}
        same = new is event
        self._last = self._writer.pass_on(raw, event, is_plain=is_plain) if same else self._writer.write(new)

    def _take_other(self, raw: bytes, event: Item, is_plain: bool) -> None:
        index: Any = event.get("output_index")
        if index is not None or event.get("item_id") is not None:
            held = self._items.get(self._index(event))
            if isinstance(held, HeldItem):
                held.hold(raw, event, is_plain=is_plain)
                return
        self._relay_loose(raw, event, is_plain)

    def _relay_loose(self, raw: bytes, event: Item, is_plain: bool) -> None:
        if event["type"].endswith(".done"):
            for rest in self._loose.finish(event["type"].removesuffix(".done") + ".delta"):
                self._emit(rest)
        new = None if self._loose.is_blocked else self._loose.guard(event)
        if new is not None:
            self._relay(raw, event, new, is_plain)
        if self._loose.is_blocked:
            self._block(None, None)

    # Endings

    def _take_ending(self, raw: bytes, event: Item, is_plain: bool) -> None:
        response: Any = event.get("response")
        if not isinstance(response, dict):
            raise UpstreamBroken(f"The upstream sent {event['type']} without a response.")
        answer = cast("Item", response)
        self._note_ids(answer)
        self._note_objects(read_object_ids(answer))
        if answer.get("tools") is not None:
            self._pass.tools = answer["tools"]
        output: Any = answer.get("output")
        upstream = cast("list[Any]", output) if isinstance(output, list) else []
        self._release_unfinished(upstream)
        self._finish_all()
        if self.is_over:
            return
        fields = self._pass.envelope(answer)
        items = self._merge(upstream)
        is_same = items == upstream or output is None
        new = dict(fields)
        close_response(fields, new, None if is_same else items, self._pass)
        self.is_over = True
        self.is_blocked = self._pass.is_ended
        self.has_error = event["type"] == "response.failed"
        summarise_response(new, self._summary)
        kind = event["type"]
        if new.get("status") == "incomplete" and answer.get("status") != "incomplete":
            kind = "response.incomplete"
        rest = self._guard_rest(event, "response")
        if fields is answer and new == answer and rest is event:
            self._last = self._writer.pass_on(raw, event, is_plain=is_plain)
        else:
            self._last = self._writer.write({**rest, "type": kind, "response": new})

    def _release_unfinished(self, upstream: list[Any]) -> None:
        """Release the calls that upstream never said were done, where its last event or their arguments say it."""
        for index in sorted(self._items):
            held = self._items[index]
            if not isinstance(held, HeldItem) or self.is_over:
                continue
            whole: Any = next((entry for entry in upstream if _is_same(entry, held.added)), None) or held.complete()
            if isinstance(whole, dict):
                del self._items[index]
                self._release_whole(index, cast("Item", whole), held, None)

    def _merge(self, upstream: list[Any]) -> list[Any]:
        """Return the output of the last event: what was released of each item, and what comes new in it, guarded."""
        left = sorted(self._finished, key=lambda one: one[0])
        items: list[Any] = []
        for entry in upstream:
            identity = _identity(cast("Item", entry)) if isinstance(entry, dict) else ""
            found = next((one for one in left if one[1] == identity), None)
            if found is not None:
                left.remove(found)
                items += found[2]
                continue
            live = next((one for one in self._items.values() if _is_same(entry, one.added)), None)
            if isinstance(live, LiveItem):
                items.append(live.close(cast("Item", entry), self._pass))
                if live.hit is not None:
                    items[-1:] = live.cut(live.hit, self._pass)
                    self._pass.is_ended = True
            else:
                items += self._pass.item(entry)
            if self._pass.is_ended:
                break
        return items

    def _block(self, live: LiveItem | None, place: tuple[str, int] | None) -> None:
        """End the answer at a blocked text: close its item with a refusal, and make the last event."""
        self._pass.is_ended = True
        if live is None:
            index = max([self._last_index, *self._items, *(one[0] for one in self._finished)], default=-1) + 1
            live = LiveItem(index, {"id": None, "type": "reasoning"}, self._pass)
            items = live.cut(None, self._pass)[1:]
            events = refuse_item(index, items[0])
        else:
            self._items.pop(live.index, None)
            items = live.cut(place, self._pass)
            events = live.closing(items, place)
            index = live.index
        for event in events:
            self._emit(event)
        self._finished.append((index, "", items))
        self._cut()

    def _cut(self) -> None:
        """Make the last event of an answer that a block ended."""
        self.is_over = self.is_blocked = True
        for item in self._items.values():
            if isinstance(item, LiveItem):
                self._finished.append((item.index, "", [item.freeze()]))
        items = [entry for _, _, entries in sorted(self._finished, key=lambda one: one[0]) for entry in entries]
        response: Item = {
            "id": self.response_id or "resp_unknown",
            "object": "response",
            "created_at": 0,
            "model": self._summary.model or "",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            **(self._snapshot or {}),
            "output": items,
            "usage": None,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
        }
        self._summary.finish_reasons[0] = "content_filter"
        self._last = self._writer.write({"type": "response.incomplete", "response": response})


def _identity(item: Item) -> str:
    return f"{item.get('type')} {item.get('id')} {item.get('call_id')}"


def _is_same(entry: Any, added: Item) -> bool:
    if not isinstance(entry, dict):
        return False
    item = cast("Item", entry)
    given = item.get("id") or item.get("call_id")
    return given is not None and given == (added.get("id") or added.get("call_id")) and type_of(item) == type_of(added)
