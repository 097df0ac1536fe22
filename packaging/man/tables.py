# SPDX-License-Identifier: Apache-2.0
"""What the programs say of themselves: the tables behind their --help, printed by --help-table (README.md here)."""
import collections
import os
import subprocess

Option = collections.namedtuple("Option", "letter name argument help")
Setting = collections.namedtuple("Setting", "where name argument option unit default allowed help reload")


class Program:
    """One program or subcommand: its arguments, what it is for, its options; commands of `terse`, settings of `tersed`."""

    def __init__(self, text):
        self.name = self.arguments = self.about = ""
        self.options, self.commands, self.settings = [], [], []
        for line in text.splitlines():
            kind, *words = line.split("\t")
            if kind == "program":
                self.name, self.arguments = words
            elif kind == "about":
                self.about = words[0]
            elif kind == "command":
                self.commands.append(tuple(words))
            elif kind == "option":
                self.options.append(Option(*words))
            elif kind == "setting":
                self.settings.append(Setting(*(words + [""])[:9]))
            else:
                raise SystemExit(f"--help-table has a line of kind '{kind}', which nobody here knows")
        if not self.name:
            raise SystemExit("--help-table named no program")

    @property
    def page(self):
        return self.name.replace(" ", "-")


def ask(build, program, *words):
    path = os.path.join(build, program)
    done = subprocess.run([path, *words, "--help-table"], stdout=subprocess.PIPE, text=True, check=True, env={"LC_ALL": "C"})
    return Program(done.stdout)


def everything(build):
    """terse, each of its subcommands in their order, tersed."""
    terse = ask(build, "terse")
    return terse, [ask(build, "terse", name) for name, _ in terse.commands], ask(build, "tersed")


def gateway(build):
    return ask(build, "terse-gateway")
