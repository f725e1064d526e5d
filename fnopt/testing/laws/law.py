"""What a law is: a sentence, a check that gathers evidence, and the verdict on one optimizer."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fnopt.testing.laws.subject import Subject

KEPT, BROKEN, NOT_APPLICABLE = "kept", "broken", "not applicable"


class NotApplicable(Exception):
    """Raised by a check: the law says nothing about this optimizer, and why."""


class Evidence:
    """What a check found: breaches of the law, and notes on what it could not look at."""

    def __init__(self) -> None:
        self.breaches: list[str] = []
        self.notes: list[str] = []
        self.places: list[str] = []

    def breach(self, words: str) -> None:
        """Records a breach of the law at the present place."""
        whole = ": ".join([*filter(None, self.places), words])
        if whole not in self.breaches:
            self.breaches.append(whole)

    def expect(self, kept: bool, words: str) -> None:
        """Records a breach unless `kept`."""
        if not kept:
            self.breach(words)

    def extend(self, words: Iterator[str]) -> None:
        """Records each as a breach."""
        for one in words:
            self.breach(one)

    def note(self, words: str) -> None:
        """Records something that the reader of a report should know."""
        self.notes.append(": ".join([*filter(None, self.places), words]))

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Names the place of what is found inside; an exception raised there is a breach."""
        self.places.append(place)
        try:
            yield
        except NotApplicable:
            raise
        except Exception as error:
            self.breach(short(error))
        finally:
            self.places.pop()


def short(error: Exception) -> str:
    """An exception in one line of at most 300 characters."""
    words = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {words[:300]}{'...' if len(words) > 300 else ''}"


@dataclasses.dataclass(frozen=True)
class Law:
    """One of the laws that a transformation is expected to keep.

    Attributes:
      code: `L1` to `L18`.
      title: its name.
      says: what it says, in one sentence.
      check: gathers the evidence about a subject.
    """

    code: str
    title: str
    says: str
    check: Callable[[Subject, Evidence], None] = dataclasses.field(repr=False)

    def judge(self, build: Callable[..., Any] | Subject) -> Finding:
        """The verdict on the transformation that `build()` returns, or on a `Subject`."""
        evidence = Evidence()
        try:
            with evidence.at(""):
                subject = build if isinstance(build, Subject) else Subject(build)
                self.check(subject, evidence)
        except NotApplicable as reason:
            if not evidence.breaches:
                return Finding(self, NOT_APPLICABLE, (str(reason), *evidence.notes))
        if evidence.breaches:
            return Finding(self, BROKEN, tuple(evidence.breaches))
        return Finding(self, KEPT, tuple(evidence.notes))


class Finding(NamedTuple):
    """The verdict of one law on one optimizer; prints as a paragraph.

    Attributes:
      law: the law.
      verdict: "kept", "broken" or "not applicable".
      evidence: the breaches; the reason where it does not apply; notes where it is kept.
    """

    law: Law
    verdict: str
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.law.code} {self.law.title}: {self.verdict}"]
        if self.verdict == BROKEN:
            lines.append(f"  the law: {self.law.says}")
        lines += [f"  - {words}" for words in self.evidence[:8]]
        if len(self.evidence) > 8:
            lines.append(f"  - and {len(self.evidence) - 8} more")
        return "\n".join(lines)


class LawError(AssertionError):
    """An optimizer breaks laws.

    Attributes:
      findings: one for each law that it breaks.
    """

    def __init__(self, name: str, findings: Sequence[Finding]):
        self.findings = tuple(findings)
        codes = ", ".join(finding.law.code for finding in findings)
        super().__init__("\n".join([f"{name} breaks {codes}", *map(str, findings)]))
