"""The retry policy, by tables."""

import pytest

from lukhas.openai.retry import Attempt, choose_pause, read_retry_after, read_should_retry

HTTP_DATE_S = 1_735_689_605  # Wed, 01 Jan 2025 00:00:05 GMT


@pytest.mark.parametrize(
    ("attempt", "again"),
    [
        pytest.param(Attempt(1, surely_not_sent=True), True, id="not-sent"),
        pytest.param(Attempt(1), False, id="may-be-sent"),
        *[pytest.param(Attempt(1, status=s), True, id=str(s)) for s in (429, 500, 502, 503, 504, 520, 529, 599)],
        *[
            pytest.param(Attempt(1, status=s), False, id=str(s))
            for s in (200, 400, 401, 403, 404, 408, 409, 413, 422, 499, 501, 505)
        ],
        pytest.param(Attempt(1, status=503, should_retry=False), False, id="503-told-not-to"),
        pytest.param(Attempt(1, status=429, should_retry=False), False, id="429-told-not-to"),
        pytest.param(Attempt(1, status=409, should_retry=True), True, id="409-told-to"),
        pytest.param(Attempt(1, status=200, should_retry=True), False, id="200-told-to"),
        pytest.param(Attempt(2, status=503), True, id="second"),
        pytest.param(Attempt(3, status=503), False, id="third-of-two-retries"),
        pytest.param(Attempt(1, status=429, retry_after_s=0), True, id="retry-after-0"),
        pytest.param(Attempt(1, status=429, retry_after_s=10), True, id="retry-after-at-cap"),
        pytest.param(Attempt(1, status=429, retry_after_s=10.1), False, id="retry-after-over-cap"),
        pytest.param(Attempt(1, status=503, retry_after_s=3600), False, id="503-retry-after-over-cap"),
    ],
)
def test_choose_pause_decides_who_is_tried_again(attempt: Attempt, again: bool) -> None:
    """Only what was surely not sent, 429 and 5xx is repeated, and the upstream's own word goes first."""
    assert (choose_pause(attempt, max_retries=2, remaining_s=60, draw=0.5) is not None) is again


@pytest.mark.parametrize(
    ("number", "draw", "pause"),
    [
        pytest.param(1, 0.0, 0.0, id="no-wait"),
        pytest.param(1, 1.0, 0.25, id="first"),
        pytest.param(2, 1.0, 0.5, id="doubles"),
        pytest.param(3, 0.5, 0.5, id="half-of-third"),
        pytest.param(9, 1.0, 8.0, id="capped"),
        pytest.param(5000, 1.0, 8.0, id="no-overflow"),
    ],
)
def test_choose_pause_backs_off_with_full_jitter(number: int, draw: float, pause: float) -> None:
    """The pause is a random share of a ceiling that doubles up to its cap."""
    attempt = Attempt(number, status=503)
    assert choose_pause(attempt, max_retries=10_000, remaining_s=60, draw=draw) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("attempt", "remaining_s"),
    [
        pytest.param(Attempt(3, status=503), 0.9, id="backoff-past-deadline"),
        pytest.param(Attempt(1, status=429, retry_after_s=5), 5.0, id="retry-after-past-deadline"),
        pytest.param(Attempt(1, surely_not_sent=True), 0.0, id="no-time-left"),
    ],
)
def test_choose_pause_past_the_deadline_gives_up_at_once(attempt: Attempt, remaining_s: float) -> None:
    """A pause that the deadline would cut is not begun."""
    assert choose_pause(attempt, max_retries=9, remaining_s=remaining_s, draw=0.99) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="absent"),
        pytest.param({"retry-after": "2"}, 2.0, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, 1.5, id="decimal"),
        pytest.param({"retry-after-ms": "250", "retry-after": "9"}, 0.25, id="ms-first"),
        pytest.param({"retry-after-ms": "soon", "retry-after": "9"}, 9.0, id="ms-garbage"),
        pytest.param({"retry-after": "Wed, 01 Jan 2025 00:00:05 GMT"}, 5.0, id="date"),
        pytest.param({"retry-after": "Wed, 01 Jan 2020 00:00:05 GMT"}, 0.0, id="past-date"),
        pytest.param({"retry-after": "-1"}, None, id="negative"),
        pytest.param({"retry-after": "nan"}, None, id="nan"),
        pytest.param({"retry-after": "inf"}, None, id="infinite"),
        pytest.param({"retry-after": "tomorrow"}, None, id="garbage"),
        pytest.param({"retry-after": "Wed, 99 Jan 2025 00:00:05 GMT"}, None, id="no-such-date"),
        pytest.param({"retry-after": ""}, None, id="empty"),
    ],
)
def test_read_retry_after_takes_ms_seconds_and_dates(headers: dict[str, str], seconds: float | None) -> None:
    """Every form in use is read, and what is none of them counts as absent."""
    assert read_retry_after(headers, now_s=HTTP_DATE_S - 5) == seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("true", True, id="true"),
        pytest.param(" FALSE ", False, id="false"),
        pytest.param("maybe", None, id="other"),
    ],
)
def test_read_should_retry_takes_two_words(text: str, value: bool | None) -> None:
    """Only true and false mean something."""
    assert read_should_retry({"x-should-retry": text}) is value


def test_read_should_retry_without_header_says_nothing() -> None:
    """An absent header is no word."""
    assert read_should_retry({}) is None
