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
from lukhas.openai.response_event import ENDINGS, KEEP_ALIVE, LIFECYCLE, EventWriter, clean_event, read_event
from lukhas.openai.response_guard import EVENT_FIELDS, AnswerPass, is_base64
from lukhas.openai.response_held import HeldItem, is_live
from lukhas.openai.response_item import Item, is_id, read_item_ids, refusal_item, type_of
from lukhas.openai.response_live import LiveItem, Place, refuse_item
from lukhas.openai.response_loose import LooseStrings
from lukhas.openai.response_output import StreamedOutput, is_same
from lukhas.openai.response_run import DELTAS, DONES, PARTS, Run, RunForm, index_of
from lukhas.openai.sse import event_data, is_done

_MOST_RUNS: Final = 4096
_DELTA_FIELDS: Final = EVENT_FIELDS | {"delta", "logprobs"}
_JUDGED_FIELDS: Final = ("item", "delta", "arguments", "input", "code", "command")
_PART_EVENTS: Final = {
    "response.content_part.added": ("content", "content_index"),
    "response.content_part.done": ("content", "content_index"),
    "response.reasoning_summary_part.added": ("summary", "summary_index"),
    "response.reasoning_summary_part.done": ("summary", "summary_index"),
}


class ResponseRewriter:
    """Guards one streamed answer; see `lukhas.openai.call.StreamRewriter`."""

    def __init__(self, guard: AnswerGuard, summary: Summary) -> None:
        self.is_over = False
        self.is_blocked = False
        self.has_error = False
        self._guard = guard
        self._summary = summary
        self._pass = AnswerPass(guard)
        self._writer = EventWriter()
        self._loose = LooseStrings(guard, self._pass)
        self._runs: dict[tuple[str, Any, Any], Run] = {}
        self._output = StreamedOutput()
        self._last = b""
        takers: dict[str, Callable[[bytes, Item, bool], None]] = {
            "response.output_item.added": self._take_added,
            "response.output_item.done": self._take_item_done,
            "response.output_text.annotation.added": self._take_annotation,
            "response.audio.delta": self._take_audio,
            "error": self._take_error,
        }
        takers |= dict.fromkeys(DONES, self._take_text_done)
        takers |= dict.fromkeys(_PART_EVENTS, self._take_part)
        takers |= dict.fromkeys(LIFECYCLE, self._take_lifecycle)
        takers |= dict.fromkeys(ENDINGS, self._take_ending)
        self._takers = takers

    @property
    def blocked_calls(self) -> list[str]:
        """Ids of the tool calls that did not pass; upstream's stored answer still holds them."""
        return self._pass.blocked_calls

    @property
    def objects(self) -> Sequence[ObjectRef]:
        """What upstream has made for this answer, as far as it has told."""
        return self._output.objects

    @property
    def response_id(self) -> str | None:
        """The answer's id; None until upstream has said it."""
        return self._output.response_id

    @property
    def conversation_id(self) -> str | None:
        """The conversation that the answer belongs to; None where upstream has named none."""
        return self._output.conversation_id

    def take(self, raw: bytes) -> Sequence[bytes]:
        """Take one whole event and return the events to release now.

        Raises:
            UpstreamBroken: what cannot be read cannot be guarded, and is not passed on.
        """
        if self.is_over:
            return ()
        self._writer.note(raw)
        if len(raw) < 64 and b"[DONE]" in raw and is_done(event_data(raw)):
            return self._take_done()
        event, is_plain = read_event(raw)
        if event is None:
            # A comment keeps the connection alive; what it says is nobody's to read.
            return (KEEP_ALIVE,)
        form = DELTAS.get(event["type"])
        if form is not None and event.keys() <= _DELTA_FIELDS:
            index, part, delta = event.get("output_index"), event.get(form.index), event.get("delta")
            if type(index) is int and type(part) is int and type(delta) is str:
                run = self._runs.get((form.delta, index, part))
                if (
                    run is not None
                    and not run.is_finished
                    and event.get("item_id") == run.item_id
                    and not event.get("logprobs")
                    and ("obfuscation" not in event or is_id(event["obfuscation"]))
                ):
                    out = run.feed(delta)
                    if out == delta and not run.is_blocked:
                        return (self._writer.pass_on(raw, event, is_plain=is_plain),)
                    self._release_delta(run, event, out)
                    return self._writer.drain()
        clean = clean_event(event)
        is_plain = is_plain and clean is event
        if form is not None:
            self._take_delta(form, raw, clean, is_plain)
        else:
            self._takers.get(event["type"], self._take_other)(raw, clean, is_plain)
        return self._writer.drain()

    def flush(self) -> Sequence[bytes]:
        """Return what is still to be released before the last event.

        Nothing of an answer that broke off: a text that was cut was never seen whole, and what is held of it may be
        half of what may not pass.
        """
        return self._writer.drain()

    def stop(self, refusal: str) -> Sequence[bytes]:
        """End the answer here, as a moderator wants it that judged text after this guard.

        Nobody knows here which of the last events the caller has got, so the last one holds the refusal alone.
        """
        self._writer.drain()
        item = refusal_item({}, refusal, status="incomplete")
        for event in refuse_item(self._output.next_place(), item):
            self._writer.emit(event)
        self._output.replace([item])
        self._cut()
        return self._writer.drain()

    def end(self) -> bytes:
        """Return the last event; empty where upstream's stream broke off before it."""
        return self._last

    def _take_done(self) -> Sequence[bytes]:
        self._finish_all()
        if not self.is_over:
            self.is_over = True
            self._last = b"data: [DONE]\n\n"
        return self._writer.drain()

    # Items

    def _read_response(self, event: Item) -> Item:
        response: Any = event.get("response")
        if not isinstance(response, dict):
            raise UpstreamBroken(f"The upstream sent {event['type']} without a response.")
        answer = cast("Item", response)
        self._output.note_response(answer)
        if answer.get("tools") is not None:
            self._pass.tools = answer["tools"]
        return answer

    def _take_lifecycle(self, raw: bytes, event: Item, is_plain: bool) -> None:
        answer = self._read_response(event)
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
        self._output.snapshot = fields
        new = event if fields is answer else {**event, "response": fields}
        self._writer.relay(raw, event, self._pass.rest(new, "response"), is_plain)
        summarise_response(answer, self._summary)
        self._summary.finish_reasons.pop(0, None)
        if self._pass.is_ended:
            self._output.replace(cast("list[Any]", fields["output"]))
            self._cut()

    def _take_added(self, raw: bytes, event: Item, is_plain: bool) -> None:
        item: Any = event.get("item")
        if not isinstance(item, dict):
            self._take_other(raw, event, is_plain)
            return
        index: Any = event.get("output_index")
        if not isinstance(index, int):
            index = self._output.next_place()
        if not is_live(item):
            self._output.begin(index, HeldItem(index, event, raw))
            return
        known = self._output.open.get(index)
        if isinstance(known, LiveItem):
            self._finish_item(known)
            if self.is_over:
                return
        for key in [key for key in self._runs if key[1] == index]:
            # A server that gives all its items the same index.
            del self._runs[key]
        live = LiveItem(index, cast("Item", item), self._pass)
        self._output.begin(index, live)
        is_hit = self._pass.take_hit()
        new = event if live.opened is item else {**event, "item": live.opened}
        self._writer.relay(raw, event, self._pass.rest(new, "item"), is_plain)
        if is_hit:
            self._block(live, None)

    def _take_item_done(self, raw: bytes, event: Item, is_plain: bool) -> None:
        item: Any = event.get("item")
        if not isinstance(item, dict):
            self._take_other(raw, event, is_plain)
            return
        index = self._output.place_of(event)
        self._output.note_objects(read_item_ids(item, index))
        known = self._output.open.get(index)
        if isinstance(known, LiveItem) and is_live(item):
            self._finish_item(known)
            if self.is_over:
                return
            new = known.close(cast("Item", item), self._pass)
            if known.hit is not None:
                self._block(known, known.hit)
                return
            self._output.finish(index, cast("Item", item), [new])
            changed = event if new is item else {**event, "item": new}
            self._writer.relay(raw, event, self._pass.rest(changed, "item"), is_plain)
            return
        held = known if isinstance(known, HeldItem) else None
        self._release_whole(index, cast("Item", item), held, (raw, event, is_plain))

    def _release_whole(
        self, index: int, item: Item, held: HeldItem | None, done: tuple[bytes, Item, bool] | None
    ) -> None:
        """Judge an item that is whole now, and release it with all its events, or the refusal in its place."""
        guarded = self._pass.item(item)
        new = cast("Item", guarded[0])
        self._output.finish(index, item, guarded)
        if type_of(new) != type_of(item):
            for refusal in refuse_item(index, new):
                self._writer.emit(refusal)
        else:
            if held is not None:
                for raw, event, is_plain in held.release(new, self._pass):
                    if is_plain is None:
                        self._writer.emit(self._pass.rest(event, *_JUDGED_FIELDS))
                    elif not self.is_over:
                        self._relay_loose(raw, event, is_plain)
            if self.is_over:
                return
            if done is not None:
                raw, event, is_plain = done
                changed = event if new is item else {**event, "item": new}
                self._writer.relay(raw, event, self._pass.rest(changed, "item"), is_plain)
            else:
                self._writer.emit({"type": "response.output_item.done", "output_index": index, "item": new})
        for offset, extra in enumerate(guarded[1:], start=1):
            for refusal in refuse_item(index + offset, cast("Item", extra)):
                self._writer.emit(refusal)
        if self._pass.is_ended:
            self._cut()

    # Runs of text

    def _take_delta(self, form: RunForm, raw: bytes, event: Item, is_plain: bool) -> None:
        """Take a delta that is its run's first, or in anything not like most."""
        live = self._output.live_for(event, self._pass)
        delta: Any = event.get("delta")
        if live is None or not isinstance(delta, str):
            self._take_other(raw, event, is_plain)
            return
        part = index_of(event, form)
        run = live.runs.get((form.place, part))
        if run is None:
            run = self._open_run(live, form, part)
        if run.is_finished:
            raise UpstreamBroken("The upstream went on with a text that had ended.")
        run.item_id = event.get("item_id")
        out = run.feed(delta)
        if out == delta and event.keys() <= _DELTA_FIELDS and not event.get("logprobs") and not run.is_blocked:
            self._writer.relay(raw, event, event, is_plain)
        else:
            self._release_delta(run, event, out)

    def _open_run(self, live: LiveItem, form: RunForm, part: int) -> Run:
        if len(self._runs) >= _MOST_RUNS:
            raise UpstreamBroken(f"The upstream sent more than {_MOST_RUNS} texts in one answer.")
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
            self._writer.emit(self._pass.rest(new, "delta", "logprobs"))
        if run.is_blocked:
            live = self._output.live_for(event, self._pass)
            if live is not None:
                self._block(live, (run.form.place, index_of(event, run.form)))

    def _finish_run(self, live: LiveItem, place: Place) -> None:
        """Release the rest of a run, as one more delta."""
        rest = live.finish_run(place)
        if rest is not None:
            self._writer.emit(rest)
        if live.runs[place].is_blocked:
            self._block(live, place)

    def _finish_item(self, live: LiveItem) -> None:
        for place in sorted(live.runs):
            if not self.is_over:
                self._finish_run(live, place)

    def _finish_all(self) -> None:
        for _, item in sorted(self._output.open.items()):
            if isinstance(item, LiveItem) and not self.is_over:
                self._finish_item(item)
        if not self.is_over:
            for event in self._loose.finish():
                self._writer.emit(event)
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
        live = self._output.live_for(event, self._pass)
        text: Any = event.get(form.field)
        if live is None or not isinstance(text, str):
            self._take_other(raw, event, is_plain)
            return
        part = index_of(event, form)
        if not self._settle(live, form, part, text):
            return
        run = live.runs[form.place, part]
        new = event if run.text == text else {**event, form.field: run.text}
        new = live.close_logprobs(new, run, self._pass, is_whole=new is event)
        self._writer.relay(raw, event, self._pass.rest(new, form.field, "logprobs"), is_plain)

    def _take_part(self, raw: bytes, event: Item, is_plain: bool) -> None:
        place, field = _PART_EVENTS[event["type"]]
        live = self._output.live_for(event, self._pass)
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
            if form is not None and isinstance(text, str):
                self._open_run(live, form, number)
            new = live.open_part((place, number), fields, self._pass)
        else:
            if form is not None and isinstance(text, str) and not self._settle(live, form, number, text):
                return
            new = live.close_part((place, number), fields, self._pass)
        is_hit = self._pass.take_hit()
        if is_hit and event["type"].endswith(".done"):
            self._block(live, (place, number))
            return
        changed = event if new is part else {**event, "part": new}
        self._writer.relay(raw, event, self._pass.rest(changed, "part"), is_plain)
        if is_hit or ((run := live.runs.get((place, number))) is not None and run.is_blocked):
            self._block(live, (place, number))

    # Everything else

    def _take_annotation(self, raw: bytes, event: Item, is_plain: bool) -> None:
        live = self._output.live_for(event, self._pass)
        guarded = self._pass.tree(event.get("annotation"), "annotation")
        if self._pass.take_hit() and live is not None:
            index: Any = event.get("content_index")
            self._block(live, ("content", index if isinstance(index, int) else 0))
            return
        new = event if guarded is event.get("annotation") else {**event, "annotation": guarded}
        self._writer.relay(raw, event, self._pass.rest(new, "annotation"), is_plain)

    def _take_audio(self, raw: bytes, event: Item, is_plain: bool) -> None:
        delta: Any = event.get("delta")
        if not isinstance(delta, str) or (delta and not is_base64(delta)):
            self._relay_loose(raw, event, is_plain)
        elif self._pass.admit("audio"):
            self._writer.relay(raw, event, self._pass.rest(event, "delta"), is_plain)

    def _take_error(self, raw: bytes, event: Item, is_plain: bool) -> None:
        self.has_error = self.is_over = True
        new = self._pass.error(event)
        self._writer.relay(raw, event, new, is_plain)
        self._last = self._writer.drain_last()

    def _take_other(self, raw: bytes, event: Item, is_plain: bool) -> None:
        if "_call" in event["type"] or not event.keys().isdisjoint(("output_index", "item_id")):
            held = self._output.open.get(self._output.place_of(event))
            if isinstance(held, HeldItem):
                held.hold(raw, event, is_plain=is_plain)
                return
        self._relay_loose(raw, event, is_plain)

    def _relay_loose(self, raw: bytes, event: Item, is_plain: bool) -> None:
        if event["type"].endswith(".done"):
            for rest in self._loose.finish(event["type"].removesuffix(".done") + ".delta"):
                self._writer.emit(rest)
        new = None if self._loose.is_blocked else self._loose.guard(event)
        if new is not None:
            self._writer.relay(raw, event, new, is_plain)
        if self._loose.is_blocked:
            self._block(None, None)

    # Endings

    def _take_ending(self, raw: bytes, event: Item, is_plain: bool) -> None:
        answer = self._read_response(event)
        output: Any = answer.get("output")
        if output is not None and not isinstance(output, list):
            raise UpstreamBroken("The upstream's answer has an output of an unknown shape.")
        upstream = cast("list[Any]", output or [])
        self._release_unfinished(upstream)
        self._finish_all()
        if self.is_over:
            return
        fields = self._pass.envelope(answer)
        items = self._output.merge(upstream, self._pass)
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
        rest = self._pass.rest(event, "response")
        if fields is answer and new == answer and rest is event:
            self._last = self._writer.pass_on(raw, event, is_plain=is_plain)
        else:
            self._last = self._writer.write({**rest, "type": kind, "response": new})

    def _release_unfinished(self, upstream: list[Any]) -> None:
        """Release the calls that upstream never said were done, where its last event or their arguments say it."""
        for index, held in sorted(self._output.open.items()):
            if not isinstance(held, HeldItem) or self.is_over:
                continue
            whole: Any = next((entry for entry in upstream if is_same(entry, held.added)), None) or held.complete()
            if isinstance(whole, dict):
                self._release_whole(index, cast("Item", whole), held, None)

    def _block(self, live: LiveItem | None, place: Place | None) -> None:
        """End the answer at a blocked text: close its item with a refusal, and make the last event."""
        self._pass.is_ended = True
        if live is None:
            index = self._output.next_place()
            items = [refusal_item({}, self._pass.refusal, status="incomplete")]
            events = refuse_item(index, items[0])
        else:
            index = live.index
            items = live.cut(place, self._pass)
            events = live.closing(items, place)
        for event in events:
            self._writer.emit(event)
        self._output.finish(index, {}, items)
        self._cut()

    def _cut(self) -> None:
        """Make the last event of an answer that a block ended."""
        self.is_over = self.is_blocked = True
        self._summary.finish_reasons[0] = "content_filter"
        response = self._output.cut(self._summary.model)
        self._last = self._writer.write({"type": "response.incomplete", "response": response})
