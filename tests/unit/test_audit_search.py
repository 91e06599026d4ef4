"""Search over the log: the same with an index, with half of one and without, on whatever is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lukhas.audit.record import AuditRecord, encode_record, parse_record, splice_tail
from lukhas.audit.search_index import FILE_NAME, SearchIndex
from lukhas.audit.search_page import Page, search
from lukhas.audit.search_query import Query, facts, parse_text
from lukhas.audit.source import RecordSource
from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.errors import InvalidRequest, StorageUnavailable
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.file_lock import FileLock
from lukhas.storage.sqlite import load_sqlite_module
from lukhas.storage.writer import GroupCommitWriter

SUBJECTS = [make_id("sub") for _ in range(3)]
MODELS = ("gpt-4o-mini", "Löwe/7b", "m")
MODES = ("strict", "balanced")
SIGNALS = ("alignment_risk", "novelty")
TOOLS = ("browser", "run_shell", "çelik")
WORDS = ("heron", "Straße", "日本", "naïve", "a", "rule_7", "O'Brien", "x*", '"quoted"')


class Log:
    """A log in a folder, written by what it is told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database: Database = open_database(f"sqlite:///{folder}/lukhas.db")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        self.store = AuditStore(self.database, self.writer, SystemClock())
        self.source = self.store.source

    def append(self, *records: AuditRecord) -> None:
        entries = [encode_record(one) for one in records]
        self.writer.submit_sync(self.store._log.write_together, entries, 60)

    def documents(self) -> list[dict[str, Any]]:
        return [parse_record(data) for _, data in self.source.read(0, 100_000)]

    def prune(self, before: int) -> None:
        with self.database.writer.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM audit_record WHERE leaf_index < {before}")

    def close(self) -> None:
        self.writer.close(10)
        self.database.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def record(kind: str = "note", at: int = 1_000, body: Any = None, **more: Any) -> AuditRecord:
    given = {"tenant": "acme", "key_id": "key_1", "session": None, "user": None, "request_id": None, **more}
    return AuditRecord(kind=kind, audit_id=make_id("aud"), time_ms=at, body={} if body is None else body, **given)


def random_record(dice: random.Random, at: int) -> AuditRecord:
    """Return a decision, an outcome or a note, of one of a few tenants, keys and people."""
    who: dict[str, Any] = {
        "tenant": dice.choice(("acme", "other", "")),
        "key_id": dice.choice(("key_1", "key_2")),
        "session": dice.choice((None, *SUBJECTS)),
        "user": dice.choice((None, *SUBJECTS)),
    }
    kind = dice.choice(("decision", "outcome", "note"))
    if kind == "decision":
        body: dict[str, Any] = {
            "model": dice.choice(MODELS),
            "mode": dice.choice(("enforce", "shadow")),
            "policy": dice.choice(("pol_1", "pol_2")),
            "parameters": {"safety_mode": dice.choice(MODES), "tools": ["retrieval"]},
            "inputs": {
                "levels": {one: 0.5 for one in SIGNALS if dice.random() < 0.5},
                "tools": [one for one in TOOLS if dice.random() < 0.5],
            },
        }
    elif kind == "outcome":
        body = {"status": dice.choice(("ok", "failed")), "blocked_calls": [{"tool": dice.choice(TOOLS), "rule": "r"}]}
    else:
        body = {"text": " ".join(dice.choices(WORDS, k=4))}
    return record(kind, at, body, **who)


def random_query(dice: random.Random, latest: int) -> Query:
    given: dict[str, Any] = {}
    choices = {
        "tenant": ("acme", "other", "", "nobody"),
        "key": ("key_1", "key_2"),
        "session": SUBJECTS,
        "user": SUBJECTS,
        "kind": ("decision", "outcome", "note"),
        "mode": (*MODES, "shadow"),
        "signal": SIGNALS,
        "tool": (*TOOLS, "retrieval"),
        "model": MODELS,
        "policy": ("pol_1", "pol_9"),
        "status": ("ok", "failed"),
        "text": ("heron", "STRASSE", "日本", "her*", '"heron a"', "o'brien naïve", "rule_7", "alignment_risk"),
    }
    for name in dice.sample(sorted(choices), dice.choice((0, 1, 1, 2))):
        given[name] = dice.choice(choices[name])
    for name in ("since_ms", "until_ms"):
        if dice.random() < 0.3:
            given[name] = dice.randrange(latest)
    return Query(**given, limit=dice.choice((1, 3, 50, 500)))


def naive(documents: list[dict[str, Any]], query: Query) -> list[int]:
    """Return the indexes that a reader with a pencil would find; written without any of the program's own reading."""
    found: list[int] = []
    for one in reversed(documents):
        body, inputs = one["body"], one["body"].get("inputs", {})
        at = int(one["time"][20:23]) + 1000 * int(one["time"][17:19]) + 60_000 * int(one["time"][14:16])
        tools = [*inputs.get("tools", []), *[call["tool"] for call in body.get("blocked_calls", [])]]
        has = {
            "tenant": [one["tenant"]],
            "key": [one["key_id"]],
            "session": [one["session"]],
            "user": [one["end_user"]],
            "kind": [one["kind"]],
            "mode": [body.get("mode"), body.get("parameters", {}).get("safety_mode")],
            "signal": list(inputs.get("levels", {})),
            "tool": tools,
            "model": [body.get("model")],
            "policy": [body.get("policy")],
            "status": [body.get("status")],
        }
        fits = all(getattr(query, name) is None or getattr(query, name) in values for name, values in has.items())
        fits = fits and (query.since_ms is None or at >= query.since_ms)
        fits = fits and (query.until_ms is None or at < query.until_ms)
        said = body.get("text", "").lower().replace("ß", "ss").replace('"', " ").replace("*", " ").replace("'", " ")
        said = f" {' '.join(said.replace('_', ' ').split())} "
        texts = {
            None: True,
            "heron": " heron " in said,
            "STRASSE": " strasse " in said,
            "日本": " 日本 " in said,
            "her*": " her" in said,
            '"heron a"': " heron a " in said,
            "o'brien naïve": " o brien " in said and " naïve " in said,
            "rule_7": " rule 7 " in said,
            "alignment_risk": "alignment_risk" in inputs.get("levels", {}),
        }
        if fits and texts[query.text]:
            found.append(int(one["tree"]["index"]))
    return found


def every_page(query: Query, source: RecordSource, index: SearchIndex | None, **options: Any) -> list[int]:
    found: list[int] = []
    for _ in range(10_000):
        page = search(query, source, index, **options)
        assert len(page.rows) <= query.limit
        found += [row.index for row in page.rows]
        if page.next_cursor is None:
            assert page.complete
            return found
        query = replace(query, cursor=page.next_cursor)
    raise AssertionError("pages without an end")


def indexes(page: Page) -> list[int]:
    return [row.index for row in page.rows]


@pytest.mark.parametrize("seed", range(4))
def test_search_equals_a_naive_filter_with_and_without_an_index(log: Log, tmp_path: Path, seed: int) -> None:
    """Whole, half or no index, one page or many, times out of order: always the same records, newest first."""
    dice = random.Random(seed)
    times = [max(0, number * 20 + dice.randrange(-3_000, 3_000)) for number in range(520)]
    log.append(*(random_record(dice, at) for at in times))
    documents = log.documents()
    whole, half = SearchIndex(tmp_path / "whole", log.source), SearchIndex(tmp_path / "half", log.source)
    assert whole.catch_up(10_000) == 520 and half.catch_up(300) == 300
    assert (whole.lag(), half.lag()) == (0, 220)
    hits = 0
    for _ in range(25):
        query = random_query(dice, 13_000)
        expected = naive(documents, query)
        hits += len(expected)
        for index in (whole, half, None):
            assert every_page(replace(query, limit=max(query.limit, 25)), log.source, index) == expected, query
        assert indexes(search(query, log.source, whole)) == expected[: query.limit]
    assert hits > 300


def test_search_out_of_time_goes_on_with_its_cursor(log: Log) -> None:
    """A scan that may not last says that it is not complete, and its pages together still find everything."""
    log.append(*(record(at=n, body={"text": "heron" if n % 300 == 0 else "x"}) for n in range(1_000)))
    ticks = iter(range(10_000))
    page = search(Query(text="heron", limit=2), log.source, None, time_limit_s=0, now=lambda: next(ticks))
    assert not page.complete and page.next_cursor is not None
    found = every_page(Query(text="heron", limit=2), log.source, None, time_limit_s=0, now=lambda: float(next(ticks)))
    assert found == [900, 600, 300, 0]


@pytest.mark.parametrize(
    "text",
    [
        '"', '""', '"a', 'a"', '"*', "*", "**", "a*b", "(", ") OR (", "NOT a", "a OR b", "AND", "facet : x",
        "words:heron", "^heron", "NEAR(heron a)", "heron -a", "heron + a", "'; DROP TABLE record; --", "\0", "\ud800",
        "-", "{words} : a", "a" * 500, "é́́", "\u200b", "\ue000", "%", "_",
    ],
)  # fmt: skip
def test_odd_text_finds_the_same_with_and_without_an_index(log: Log, tmp_path: Path, text: str) -> None:
    """No text is an expression of the index, and none fails."""
    log.append(*(record(body={"text": one}) for one in ("heron", "a or b", "words heron", "not a", "and", "drop", "")))
    index = SearchIndex(tmp_path, log.source)
    index.catch_up()
    query = Query(text=text)
    assert indexes(search(query, log.source, index)) == indexes(search(query, log.source, None))


def test_text_of_signs_alone_finds_nothing_and_blank_text_everything(log: Log) -> None:
    """A text without a word is in no record; an empty field is no filter."""
    log.append(record(), record())
    assert indexes(search(Query(text='"!!'), log.source, None)) == []
    assert indexes(search(Query(text="  "), log.source, None)) == [1, 0]


def test_text_is_read_as_words_rows_of_words_and_beginnings() -> None:
    """A word with signs inside is a row of words; a quote that is not closed is no quote."""
    assert parse_text('Foo "Bar  baz" qu* gpt-4o "a b"* "open') == (
        (("foo",), False),
        (("bar", "baz"), False),
        (("qu",), True),
        (("gpt", "4o"), False),
        (("a", "b"), True),
        (("open",), False),
    )


def test_phrase_does_not_reach_from_one_text_into_the_next(log: Log, tmp_path: Path) -> None:
    """Two values that stand side by side are no sentence."""
    log.append(record(body={"a": "grey", "b": "heron"}), record(body={"a": "grey heron"}))
    index = SearchIndex(tmp_path, log.source)
    index.catch_up()
    for one in (index, None):
        assert indexes(search(Query(text='"grey heron"'), log.source, one)) == [1]


def test_subject_ids_are_no_words_and_are_not_in_the_file(log: Log, tmp_path: Path) -> None:
    """A session is found by its filter; its id stands neither among the words nor in the index's file."""
    sub = SUBJECTS[0]
    log.append(record(session=sub, user=sub, body={"targets": [{"id": sub}], "text": f"about {sub} here"}))
    found = facts(log.source.read(0, 1)[0][1])
    assert found is not None and sub[4:].lower() not in found.words and "about" in found.words
    index = SearchIndex(tmp_path, log.source)
    index.catch_up()
    raw = (tmp_path / FILE_NAME).read_bytes()
    assert sub.encode() not in raw and sub[4:].lower().encode() not in raw
    assert indexes(search(Query(session=sub), log.source, index)) == [0]
    assert indexes(search(Query(user=sub), log.source, index)) == [0]
    assert indexes(search(Query(text=sub), log.source, index)) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"time":5,"body":{"inputs":[],"parameters":3,"mode":[]},"kind":null}'],
)
def test_facts_of_bytes_that_are_no_record_do_not_fail(data: bytes) -> None:
    """What somebody has edited must not stop the index."""
    found = facts(data)
    assert found is None or found.time_ms is None


def test_facts_of_a_huge_record_are_bounded() -> None:
    """A record of 60 kB costs the index no more than some kB."""
    body = {"text": " ".join(f"word{n}" for n in range(9_000)), "inputs": {"tools": [f"t{n}" for n in range(2_000)]}}
    found = facts(splice_tail(encode_record(record(body=body)).head, 0, 1))
    assert found is not None and len(found.words) < 4_100 and len(found.facets) <= 512


def test_cursor_of_another_query_or_of_none_is_refused(log: Log) -> None:
    """A page goes on only where it began: same filters, and times or none as before."""
    log.append(*(record(at=n) for n in range(5)))
    cursor = search(Query(limit=2, since_ms=0), log.source, None).next_cursor
    assert cursor is not None
    assert indexes(search(Query(limit=2, since_ms=1, cursor=cursor), log.source, None)) == [2, 1]
    for wrong in (
        Query(tenant="acme", since_ms=0, cursor=cursor),
        Query(cursor=cursor),
        *(Query(since_ms=0, cursor=text) for text in ("", "x", "é", "!" * 40, cursor[:-2], cursor + "AAAA", "\0")),
    ):
        with pytest.raises(InvalidRequest) as refused:
            search(wrong, log.source, None)
        assert refused.value.param == "cursor"


@pytest.mark.parametrize(("limit", "text"), [(0, None), (501, None), (-1, None), (5, "x" * 501)])
def test_query_out_of_range_is_refused(limit: int, text: str | None) -> None:
    """A page has 1 to 500 rows, a text at most 500 characters."""
    with pytest.raises(InvalidRequest):
        Query(limit=limit, text=text)


def test_records_that_come_between_two_pages_do_not_shift_them(log: Log, tmp_path: Path) -> None:
    """The second page begins where the first ended, whatever was written since."""
    log.append(*(record(at=n) for n in range(6)))
    index = SearchIndex(tmp_path, log.source)
    index.catch_up()
    first = search(Query(kind="note", limit=3), log.source, index)
    log.append(record(), record())
    second = search(Query(kind="note", limit=3, cursor=first.next_cursor), log.source, index)
    assert (indexes(first), indexes(second), second.next_cursor) == ([5, 4, 3], [2, 1, 0], None)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"not a database" * 500), id="garbage"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:5_000]), id="cut"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: _execute(path, "DROP TABLE record"), id="table-gone"),
        pytest.param(lambda path: _execute(path, "PRAGMA user_version=99"), id="other-form"),
        pytest.param(lambda path: _execute(path, "DELETE FROM place"), id="no-place"),
        pytest.param(lambda path: _execute(path, "UPDATE place SET next_index='x'"), id="odd-place"),
    ],
)
def test_damaged_index_is_made_anew_and_search_works_meanwhile(log: Log, tmp_path: Path, damage: Any) -> None:
    """The index is never needed for an answer, and whatever became of its file, it comes back by itself."""
    log.append(*(record(at=n, body={"text": f"w{n % 3}"}) for n in range(30)))
    index = SearchIndex(tmp_path, log.source)
    index.catch_up()
    damage(tmp_path / FILE_NAME)
    expected = list(range(28, -1, -3))
    assert indexes(search(Query(text="w1"), log.source, index)) == expected
    log.append(record(body={"text": "w1"}))
    index.catch_up()
    page = search(Query(text="w1"), log.source, index)
    assert indexes(page) == [30, *expected] and page.indexed_to == 31


def _execute(path: Path, sql: str) -> None:
    connection = load_sqlite_module().connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("length", [5, 40])
def test_index_of_another_or_longer_log_is_not_used_and_made_anew(log: Log, tmp_path: Path, length: int) -> None:
    """A database that was restored, or replaced, has other records at the same indexes."""
    log.append(*(record(body={"text": "old"}) for _ in range(20)))
    SearchIndex(tmp_path, log.source).catch_up()
    other = Log(tmp_path / "other")
    try:
        other.append(*(record(body={"text": "new"}) for _ in range(length)))
        index = SearchIndex(tmp_path, other.source)
        before = search(Query(text="new", limit=500), other.source, index)
        assert before.indexed_to == 0 and len(before.rows) == length
        assert index.catch_up() == length and index.lag() == 0
        assert indexes(search(Query(text="old"), other.source, index)) == []
        assert len(search(Query(text="new", limit=500), other.source, index).rows) == length
    finally:
        other.close()


def test_pruned_records_are_forgotten_and_the_rest_is_found(log: Log, tmp_path: Path) -> None:
    """What the log prunes leaves the index too, also where nothing is left or the index had not come that far."""
    log.append(*(record(at=n, body={"text": "heron"}) for n in range(600)))
    index, late = SearchIndex(tmp_path / "a", log.source), SearchIndex(tmp_path / "b", log.source)
    index.catch_up()
    late.catch_up(100)
    for one in (index, late):
        one.forget_before(590)
    log.prune(590)
    connection = load_sqlite_module().connect(tmp_path / "a" / FILE_NAME)
    assert connection.execute("SELECT count(*) FROM record").fetchone() == (10,)
    connection.close()
    late.catch_up()
    for one in (index, late, None):
        assert every_page(Query(text="heron", limit=3), log.source, one) == list(range(599, 589, -1))
        assert every_page(Query(until_ms=592), log.source, one) == [591, 590]
    log.prune(600)
    assert SearchIndex(tmp_path / "c", log.source).lag() == 600
    fresh = SearchIndex(tmp_path / "c", log.source)
    assert fresh.catch_up() == 0
    assert fresh.lag() == 0 and indexes(search(Query(), log.source, fresh)) == []


def test_rebuild_tells_its_progress_and_ends_with_the_whole_log(log: Log, tmp_path: Path) -> None:
    """`lukhas audit reindex` shows how far it is."""
    log.append(*(record(at=n) for n in range(700)))
    index = SearchIndex(tmp_path, log.source)
    told: list[tuple[int, int]] = []
    assert index.rebuild(lambda done, total: told.append((done, total))) == 700
    assert told[-1] == (700, 700) and index.lag() == 0
    index.close()
    assert index.catch_up() == 0


def test_catch_up_leaves_the_work_to_whoever_does_it(log: Log, tmp_path: Path) -> None:
    """Two gateways on one folder: one indexes, the other does not wait."""
    log.append(record())
    index = SearchIndex(tmp_path, log.source)
    with FileLock(tmp_path / "search.lock").held(1):
        assert index.catch_up() == 0
    assert index.catch_up() == 1


def test_full_disk_is_storage_unavailable_and_the_index_goes_on_later(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not grow keeps what it has; search finds the rest without it."""
    log.append(*(record(at=n, body={"text": f"heron {n}" + " filler" * 300 + f" {n * 7919}"}) for n in range(2_000)))
    index = SearchIndex(tmp_path, log.source)
    assert index.catch_up(500) == 500
    opened = SearchIndex._open

    def cramped(self: SearchIndex) -> Any:
        connection = opened(self)
        connection.execute("PRAGMA max_page_count=1")  # SQLite takes the present size where it is larger
        return connection

    monkeypatch.setattr(SearchIndex, "_open", cramped)
    with pytest.raises(StorageUnavailable):
        index.catch_up()
    page = search(Query(text="heron", limit=500), log.source, index)
    assert indexes(page) == list(range(1_999, 1_499, -1))
    monkeypatch.undo()
    while index.lag():
        assert index.catch_up() > 0
    assert len(every_page(Query(text="heron", limit=500), log.source, index)) == 2_000
