"""One Atari 2600 through ale-py: advanced frame by frame, its memory read and written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamingvlm import SourceError

NOTHING = 0


class Console:
    """A console with a ROM of ale-py's in it. ``ram``: its 128 bytes after the last frame or write."""

    def __init__(self, rom: str) -> None:
        try:
            from ale_py import ALEInterface, LoggerMode, roms
        except ImportError as error:
            raise SourceError("the arcade needs ale-py: pip install 'streamingvlm[arcade]'") from error
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale: Any = ALEInterface()
        for name, value in (("random_seed", 0), ("frame_skip", 1)):
            self._ale.setInt(name, value)
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(roms.get_rom_path(rom))
        self.ram: NDArray[np.uint8] = self._ale.getRAM()

    def advance(self, action: int = NOTHING) -> None:
        """One frame on, with an action of the left player's (a number of ale-py's ``Action``)."""
        self._ale.act(action)
        self.ram = self._ale.getRAM()

    def write(self, address: int, value: int) -> None:
        """Sets a byte of the memory."""
        self._ale.setRAM(address, value)
        self.ram[address] = value

    def screen(self) -> NDArray[np.uint8]:
        """The picture now, (210, 160, 3) uint8 RGB."""
        picture: NDArray[np.uint8] = self._ale.getScreenRGB()
        return picture
