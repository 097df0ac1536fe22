# SPDX-License-Identifier: Apache-2.0
"""A terminal in which a program runs and that knows what it shows: a pty, and of xterm's sequences those that ncurses sends."""
import codecs
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import harness

SEQUENCE = re.compile(r"\x1b(?:\[([?>=]?)([0-9;]*)([@-~])|[()][0-9A-B]|[=>78DEHMc]|\][^\x07]*\x07)")


class Terminal:
    def __init__(self, *command, rows=24, columns=80, environment=None):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.top, self.bottom = 0, rows - 1  # of what scrolls
        self.pending, self.last, self.sent, self.status = "", " ", "", None
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for name, value in dict({"TERM": "xterm", "LC_ALL": "C.UTF-8"}, **(environment or {})).items():
                os.environ[name] = value
            while not os.get_terminal_size(0).lines:  # who starts before the size is set gets SIGWINCH
                time.sleep(0.001)
            os.execv(command[0], list(command))
        self.set_size(rows, columns)

    def set_size(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.rows, self.columns, self.top, self.bottom = rows, columns, 0, rows - 1
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row, self.column = min(self.row, rows - 1), min(self.column, columns - 1)
        self.set_size(rows, columns)

    def type(self, text):
        os.write(self.fd, text.encode())

    def hang_up(self):
        os.close(self.fd)
        self.fd = -1

    # --- what it shows ---

    def read(self, seconds=0.05):
        """Takes what is there; False once the program has closed its side."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        text = self.decoder.decode(data)
        self.sent = (self.sent + text)[-4096:]
        self.feed(text)
        return bool(data)

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.cells)

    def line(self, pattern):
        """The first line in which the pattern is found, or None."""
        return next((line for line in self.text().split("\n") if re.search(pattern, line)), None)

    def wait(self, condition, what, seconds=harness.PATIENCE):
        """Reads until condition() holds."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.read() or time.monotonic() > end:
                raise AssertionError(f"the terminal never showed {what}:\n{self.text()}")

    def shows(self, pattern):
        self.wait(lambda: self.line(pattern), f"'{pattern}'")
        return self.line(pattern)

    def end(self, seconds=harness.PATIENCE):
        """Waits for the program's end: its exit code, or minus the signal."""
        limit = time.monotonic() + seconds
        while self.status is None:
            if self.fd >= 0:
                self.read(0.01)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"the program did not end:\n{self.text()}")
        while self.fd >= 0 and self.read(0) and select.select([self.fd], [], [], 0)[0]:
            pass
        return self.status

    # --- sequences ---

    def feed(self, text):
        text = self.pending + text
        self.pending, at = "", 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                if not found:
                    if len(text) - at > 64:
                        raise AssertionError(f"a sequence that this terminal does not know: {text[at:at + 20]!r}")
                    self.pending = text[at:]
                    return
                if found.group(3):
                    self.control(found.group(1), [int(n) if n else 0 for n in found.group(2).split(";")], found.group(3))
                elif found.group(0) == "\x1bM":
                    self.row > self.top and self.move(self.row - 1, self.column) or self.scroll(-1)
                at = found.end()
                continue
            self.put(text[at])
            at += 1

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            if self.row == self.bottom:
                self.scroll(1)
            else:
                self.row = min(self.row + 1, self.rows - 1)
        elif character == "\b":
            self.column = max(0, self.column - 1)
        elif character == "\t":
            self.column = min(self.columns - 1, self.column // 8 * 8 + 8)
        elif character >= " ":
            if self.column >= self.columns:
                self.column = 0
                self.put("\n")
            self.cells[self.row][self.column] = self.last = character
            self.column += 1

    def scroll(self, lines):
        for _ in range(abs(lines)):
            if lines > 0:
                del self.cells[self.top]
                self.cells.insert(self.bottom, [" "] * self.columns)
            else:
                del self.cells[self.bottom]
                self.cells.insert(self.top, [" "] * self.columns)

    def move(self, row, column):
        self.row = max(0, min(self.rows - 1, row))
        self.column = max(0, min(self.columns - 1, column))
        return True

    def blank(self, row, first, last):
        for column in range(first, last):
            self.cells[row][column] = " "

    def control(self, mark, numbers, letter):
        n = max(1, numbers[0])
        row, column = self.row, min(self.column, self.columns - 1)
        if mark or letter in "mhlnct":
            return  # looks and modes
        if letter in "Hf":
            self.move(n - 1, max(1, (numbers + [1])[1]) - 1)
        elif letter in "ABCD":
            self.move(row + {"A": -n, "B": n}.get(letter, 0), column + {"C": n, "D": -n}.get(letter, 0))
        elif letter == "G":
            self.move(row, n - 1)
        elif letter == "d":
            self.move(n - 1, column)
        elif letter == "J":
            first, last = {0: (row, self.rows), 1: (0, row + 1), 2: (0, self.rows)}[numbers[0]]
            for r in range(first, last):
                here = numbers[0] != 2 and r == row
                self.blank(r, column if here and numbers[0] == 0 else 0, column + 1 if here and numbers[0] == 1 else self.columns)
        elif letter == "K":
            self.blank(row, *{0: (column, self.columns), 1: (0, column + 1), 2: (0, self.columns)}[numbers[0]])
        elif letter == "X":
            self.blank(row, column, min(self.columns, column + n))
        elif letter == "P":
            self.cells[row][column:column + n] = []
            self.cells[row] += [" "] * (self.columns - len(self.cells[row]))
        elif letter == "@":
            self.cells[row][column:column] = [" "] * n
            del self.cells[row][self.columns:]
        elif letter == "b":
            for _ in range(n):
                self.put(self.last)
        elif letter == "r":
            # One for a size that was is cut to the size that is.
            self.top, self.bottom = min(n, self.rows) - 1, min((numbers + [0])[1] or self.rows, self.rows) - 1
            self.move(0, 0)
        elif letter in "LM":
            keep = self.top
            self.top = row
            self.scroll(n if letter == "M" else -n)
            self.top = keep
        elif letter in "ST":
            self.scroll(n if letter == "S" else -n)
        else:
            raise AssertionError(f"a sequence that this terminal does not know: {numbers} {letter}")
