"""Audiences for verbs that a test drives itself."""

from __future__ import annotations

from podlab.events import Answer, Ask, Chunk, Notice, Stage


class Silent:
    """Remembers what it was shown; answers questions with `answer`."""

    def __init__(self, answer: Answer = None) -> None:
        self.answer = answer
        self.stages: list[Stage] = []
        self.chunks: list[Chunk] = []
        self.notices: list[Notice] = []
        self.asked: list[Ask] = []

    def stage(self, stage: Stage) -> None:
        self.stages.append(stage)

    def chunk(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice)

    def ask(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        return self.answer
