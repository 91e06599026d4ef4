"""The nightly fuzz of the expression language, by coverage: parser, interpreter, compiled function, encoder.

    pip install atheris
    python tests/fuzz/expression.py -max_total_time=600 [CORPUS]

What it finds is printed with the input that shows it, and the exit code is not 0. The judge is the one of
tests/unit/test_encode_fuzz.py, which hypothesis feeds in each run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

with atheris.instrument_imports(include=["lukhas.modulation"]):
    import lukhas.modulation.encode
    import lukhas.modulation.expression
    import lukhas.modulation.interpret
    import lukhas.modulation.interval
    import lukhas.modulation.lexeme  # noqa: F401

from test_encode_fuzz import WORDS, judge


def try_one(data: bytes) -> None:
    """Judge one text: half of them as they come, half made of the language's own words."""
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        text = provider.ConsumeUnicodeNoSurrogates(600)
    else:
        text = " ".join(WORDS[provider.ConsumeIntInRange(0, len(WORDS) - 1)] for _ in range(60) if data)
    judge(text)


def main() -> None:
    """Fuzz until the time is over; libFuzzer's options are understood."""
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
