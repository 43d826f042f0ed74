"""A terminal in memory: what a program's output looks like to the one who sits before it."""

import re

CODES = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """Lines of ``width`` cells, ``height`` of them; counts the lines that left at the top."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""] * height
        self.row = self.column = self.scrolled = 0
        self.cursor_visible = True

    def feed(self, output: str) -> None:
        for private, number, code, motion, text in CODES.findall(output):
            if text:
                line = self.lines[self.row].ljust(self.column)
                assert self.column + len(text) <= self.width, f"a line is folded: {text!r}"
                self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
                self.column += len(text)
            elif motion == "\r":
                self.column = 0
            elif motion == "\n":
                self.column = 0
                self._down()
            elif private:
                if number == "25":
                    self.cursor_visible = code == "h"
            else:
                self._control(int(number.split(";")[0] or 0), code)

    def _control(self, number: int, code: str) -> None:
        if code == "A":
            self.row = max(self.row - max(number, 1), 0)
        elif code == "K":
            self.lines[self.row] = ""
        elif code == "J":
            self.lines[self.row :] = [self.lines[self.row][: self.column]] + [""] * (self.height - self.row - 1)
        else:
            assert code == "m", f"unknown control {code}"

    def _down(self) -> None:
        self.row += 1
        if self.row == self.height:
            self.row -= 1
            self.scrolled += 1
            self.lines = [*self.lines[1:], ""]

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)
