import signal

import torch
from hypothesis import settings

torch.set_num_threads(1)
# The same examples in every run.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
# A job of a script's background is born deaf to Ctrl-C and so would be the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
