"""Asks the questions of an example in forks of its stream, which never sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.errors import CapacityError, OptionError
from ..core.events import Answer, Question, StepInput
from ..core.sampling_params import Sampling
from ..engine.ask import Fork
from ..engine.engine import Engine
from ..engine.session import Session
from .record import Record
from .task import TaskExample, TimedQuestion

#: Slack for comparing times that were added up as floats, seconds.
EPS = 1e-6
YES, NO = "Yes", "No"


@dataclass(slots=True)
class Asker:
    """Asks for all streams of an engine, in one spare slot. Everything is called on the engine's thread.

    ``sampling``: of answers (None: as the stream's replies are sampled); ``question_tokens``: most of a question.
    """

    engine: Engine
    sampling: Sampling | None
    question_tokens: int
    _fork: Fork | None = None

    def before_step(self, example: TaskExample, record: Record, session: Session, step: StepInput) -> None:
        """Ask what is asked in the turn of ``step``, which comes next."""
        end = step.chunk.end
        for question in example.questions:
            if question.own_turn or not (question.time <= end + EPS):
                continue
            if question.time > session.time + EPS or not session.turn:
                self._answer(example, record, session, question, question.time, step)

    def after_step(self, example: TaskExample, record: Record, session: Session, start: float) -> None:
        """Ask what is asked behind the step that began at ``start`` and has ended."""
        due = [one for one in example.questions if one.own_turn and one.time <= session.time + EPS]
        for question in due:
            if question.poll:
                self._poll(example, record, session, question)
            elif question.time > start + EPS or session.turn == 1:
                self._answer(example, record, session, question, session.time)

    def at_end(self, example: TaskExample, record: Record, session: Session) -> None:
        """Ask what was to be asked behind the end of the video, which has come: of all that there was to see."""
        answered = {row.get("id") for row in record.answers}
        for question in example.questions:
            late = question.own_turn and not question.poll and question.time > session.time + EPS
            if late and session.turn and (not question.id or question.id not in answered):
                self._answer(example, record, session, question, session.time)

    def _poll(self, example: TaskExample, record: Record, session: Session, question: TimedQuestion) -> None:
        """Ask whether it is time; if it is, ask the question itself, once."""
        over = question.until is not None and session.time > question.until + EPS
        if over or any(row.get("id") == question.id for row in record.answers):
            return
        asked = Question(question.poll, (YES, NO), prefix=question.prefix)
        if self._ask(example, session, session.time, asked, None).text == YES:
            self._answer(example, record, session, question, session.time)

    def _answer(
        self,
        example: TaskExample,
        record: Record,
        session: Session,
        question: TimedQuestion,
        time: float,
        step: StepInput | None = None,
    ) -> None:
        most = question.max_new_tokens or session.options.sampling.max_new_tokens
        asked = Question(question.text, question.options, question.prefix, question.as_commentary, most)
        answer = self._ask(example, session, time, asked, step)
        more: dict[str, Any] = {"id": question.id} if question.id else {}
        if answer.logprobs:
            more["logprobs"] = [round(value, 6) for value in answer.logprobs]
        record.answer(time, question.text, answer.text, **more)

    def _ask(
        self, example: TaskExample, session: Session, time: float, asked: Question, step: StepInput | None
    ) -> Answer:
        try:
            return self._taken(session).ask(asked, step)
        except CapacityError as error:
            raise OptionError(f"{example.name}, question at {time:g} s: {error}") from None

    def _taken(self, session: Session) -> Fork:
        """The fork as a copy of a stream; one that is too small for it is opened anew."""
        if self._fork is not None:
            try:
                self._fork.take(session)
                return self._fork
            except CapacityError:
                self._fork.close()
        sampling = self.sampling or session.options.sampling
        self._fork = self.engine.fork(session, question_tokens=self.question_tokens, sampling=sampling)
        self._fork.take(session)
        return self._fork
