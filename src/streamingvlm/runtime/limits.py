"""Every queue of the runtime has a bound; they are all here."""

from __future__ import annotations

#: Steps that a source is read ahead where no clock runs: enough to overlap reading, little enough to stay small.
STEPS_AHEAD = 2
#: Live, one step waits at most: another one takes its place, and the older counts as dropped.
LIVE_STEPS = 1
#: What a source tells between its steps: so many wait, then the oldest is lost.
NOTICES = 64
#: Commands of other threads that wait for the engine's thread; whoever adds one more waits.
COMMANDS = 256
#: Events that wait for a subscriber; the oldest are lost when it does not take them, and it is told how many.
SUBSCRIBER_EVENTS = 1024
#: Questions of people that wait or are answered, for each stream; one more is refused.
QUESTIONS = 8
#: Batches of questions of rules, the same.
WEIGHINGS = 8
#: Most tokens of an answer (those of a question: ``engine.options.QUESTION_TOKENS``).
ANSWER_TOKENS = 128
#: Seconds from asking to the end of the answer.
ANSWER_SECONDS = 30.0
#: Rules of one stream.
RULES = 16
#: Characters of commentary that an alert carries as its evidence; the oldest are lost.
EVIDENCE = 600
#: Characters of one step's commentary that a rule on words reads.
RULE_TEXT = 2000
#: Seconds that its regular expression may take.
RULE_SECONDS = 0.05
#: Bytes of a file of rules.
RULE_FILE = 1 << 20
#: A journal's file is ended at so many bytes or seconds, and another one begun.
JOURNAL_FILE_BYTES = 16 * 2**20
JOURNAL_FILE_SECONDS = 86400.0
#: What a journal keeps: the oldest file is removed when all together have more bytes, or when its last event is older.
#: A stream that speaks every second writes about 40 MB a day.
JOURNAL_BYTES = 512 * 2**20
JOURNAL_SECONDS = 31 * 86400.0
