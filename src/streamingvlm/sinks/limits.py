"""Every queue of the sinks has a bound; they are all here."""

from __future__ import annotations

#: Events that a file keeps until one has come that is worth overwriting what was there; the oldest are lost.
HELD_EVENTS = 256
#: Events that wait for a webhook's receiver; the oldest are lost and counted.
WEBHOOK_EVENTS = 1000
#: Steps whose frames wait for their words; the oldest go on without.
WORDLESS_STEPS = 4
#: Bytes of frames that wait for the encoder; more are dropped and counted.
FRAME_BYTES = 128 << 20
#: The same where the stream waits for the encoder: a run that is killed has told no more than these without frames.
PATIENT_BYTES = 16 << 20
#: Words and holes that wait for the encoder; the oldest without frames are lost.
CAPTION_ITEMS = 1024
#: Letters that fontconfig is asked about for one video.
FONT_SEARCHES = 256
#: Alerts that stand on a picture; of more the newest, and how many there are.
ALERT_LINES = 3
#: Seconds until an output of a live stream that could not be written is tried again.
OUTPUT_RETRY_SECONDS = 30.0
