#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make_man.py BUILD OUT: writes every manual page into OUT. What programs know of themselves is asked of those in BUILD.

A page's source is NAME.SECTION.in beside this file, in the small language that README.md here describes; a subcommand
without one gets a page of what its table says. libterse.3 takes the interface's text out of client/terse.h.
"""
import os
import re
import sys
import textwrap
import time

import tables

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ABOUT = {"tersed.8": "serves compressed neural networks to ZeroMQ clients",
         "terse-gateway.8": "HTTP for clients of tersed: the Open Inference Protocol, metrics, a page",
         "terse.1": "compress neural networks and run them on CPUs",
         "tersed.conf.5": "configuration of tersed",
         "terse-model.5": "the format of .terse files",
         "terse-protocol.7": "how clients and tersed talk",
         "libterse.3": "the C client of tersed"}
STATUS = """# EXIT STATUS
- `0` :: Done.
- `1` :: The work failed; one line on the standard error says what, where, what was found and what is allowed.
- `2` :: The command line was wrong.
"""
ENVIRONMENT = """# ENVIRONMENT
- `TERSE_ENDPOINT` :: Where the daemon is, when `-e` does not say it.
- `TERSE_CURVE_SERVER`, `TERSE_CURVE_KEY` :: Encrypted tcp: the daemon's public key (or a file with it), and the file
with this client's secret key. See *terse-keygen*(1).
- `XDG_RUNTIME_DIR` :: Without either, other users than root look for `terse/tersed.sock` in there, unless
`/run/terse/tersed.sock` exists.
"""


def roff(text):
    """Text with `code` and *word* in it; everything else is plain."""
    out = []
    for part in re.split(r"(`[^`]+`|\*[^* ]+\*(?:\(\d\))?)", text):
        if len(part) > 2 and part[0] == part[-1] == "`":
            out.append(r"\fB" + plain(part[1:-1]) + r"\fR")
        elif re.fullmatch(r"\*[^* ]+\*\(\d\)", part):
            name, section = part[1:].split("*")
            out.append(r"\fB" + plain(name) + r"\fR" + section)
        elif re.fullmatch(r"\*[^* ]+\*", part):
            out.append(r"\fI" + plain(part[1:-1]) + r"\fR")
        else:
            out.append(plain(part))
    return "".join(out)


def plain(text):
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga").replace(
        "^", r"\(ha").replace("~", r"\(ti")


def guard(line):
    return "\\&" + line if line[:1] in ".'" else line


def prose(text):
    """A sentence a line, as roff wants it, and no line longer than 79 bytes where a blank allows it."""
    lines = []
    for sentence in re.split(r"(?<=[.?!]) +(?=[A-Z`*({\"])|(?<=[.?!]\)) +(?=[A-Z])", " ".join(text.split())):
        lines += textwrap.wrap(roff(sentence), 79, break_long_words=False, break_on_hyphens=False)
    return [guard(line) for line in lines]


def verbatim(lines):
    return [".IP", ".EX", *(guard(plain(line)) for line in lines), ".EE"]


def body(source):
    """The small language of the sources: README.md has it."""
    out, blocks, paragraph_due = [], re.split(r"\n{2,}", source.strip("\n")), False
    in_list = False
    queue = []
    for block in blocks:
        lines, group = block.split("\n"), []
        for line in lines:  # headings and terms begin blocks of their own
            if group and (line.startswith(("#", "- ")) or group[-1].startswith("#")):
                queue.append(group)
                group = []
            group.append(line)
        queue.append(group)
    for lines in queue:
        first = lines[0]
        if first.startswith("## "):
            out.append(f'.SS "{plain(first[3:])}"')
            paragraph_due = in_list = False
        elif first.startswith("# "):
            out.append(f'.SH "{plain(first[2:])}"')
            paragraph_due = in_list = False
        elif first.startswith("    "):
            more = verbatim([line[4:] for line in lines])
            out += ["", *more[2:]] if out[-1:] == [".EE"] and out.pop() else more  # one example with an empty line
            paragraph_due, in_list = True, False
        elif first.startswith("- "):
            term, _, text = " ".join(line.strip() for line in lines)[2:].partition(" :: ")
            out += [".TP", guard(roff(term)), *prose(text)]
            paragraph_due, in_list = True, True
        elif first.startswith("+ "):  # goes on with the term before it
            out += [".IP" if in_list else ".PP", *prose(" ".join(lines)[2:])]
            paragraph_due = True
        else:
            out += [".PP"] if paragraph_due else []
            out += prose(" ".join(lines))
            paragraph_due, in_list = True, False
    return out


def sentence(text):
    """The words of a table as a sentence: they begin small and end without a dot."""
    head = text if re.match(r"[a-z0-9_]+:|tcp\b|ipc\b", text) else text[:1].upper() + text[1:]
    return head + ("" if head.endswith(".") else ".")


def literal(text):
    """Table text is no markup: stars and back quotes of its own stay what they are, options are set as code."""
    text = re.sub(r"`([^`]*)`", r"\1", text).replace("*", "\0")
    return re.sub(r"(?<![\w-])(--[a-z][\w-]*)", r"`\1`", text)


def option_lines(options):
    out = []
    for o in options:
        names = ", ".join(r"\fB" + plain(n) + r"\fR" for n in (o.letter, o.name) if n)
        argument = r" \fI" + plain(o.argument) + r"\fR" if o.argument else ""
        out += [".TP", names + argument]
        out += [line.replace("\0", "*") for line in prose(sentence(literal(o.help)))]
    return out


def setting_lines(settings):
    out = []
    for s in settings:
        out += [".TP", r"\fB" + plain(s.name) + r"\fR = \fI" + plain(s.argument) + r"\fR"]
        out += [line.replace("\0", "*") for line in prose(sentence(literal(s.help)))]
        facts = []
        if s.unit:
            facts.append(f"Unit: {s.unit}.")
        if s.default:
            facts.append(f"Default: {s.default}.")
        if s.allowed:
            facts.append(f"Allowed: {s.allowed}.")
        if s.reload:
            facts.append(f"Reload: {s.reload}.")
        if s.option:
            facts.append(f"Option: `{s.option}`.")
        if facts:
            out += [".br", *prose(" ".join(facts))]
    return out


class Maker:
    def __init__(self, build, out):
        self.out = out
        self.terse, self.subcommands, self.tersed = tables.everything(build)
        self.gateway = tables.gateway(build)
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        self.date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
        self.version = re.search(r"^VERSION := (\S+)", open(os.path.join(ROOT, "Makefile")).read(), re.M).group(1)

    def source(self, page):
        path = os.path.join(HERE, page + ".in")
        return open(path, encoding="utf-8").read() if os.path.exists(path) else None

    def write(self, page, about, lines):
        name, section = page.rsplit(".", 1)
        head = [r".\" Made by packaging/man/make_man.py: change what it is made of.",
                f'.TH {name.upper()} {section} "{self.date}" "terse {self.version}" "terse"', ".SH NAME",
                plain(name) + r" \- " + plain(about)]
        with open(os.path.join(self.out, page), "w", encoding="utf-8") as file:
            file.write("\n".join(head + lines) + "\n")

    def placeholder(self, word):
        """What a line {{WORD}} of a source stands for."""
        if word == "options tersed":
            own = self.tersed.options
            more = [tables.Option("", s.option, s.argument, s.help + f" (see {s.name} in *tersed.conf*(5))")
                    for s in self.tersed.settings if s.option]
            return option_lines_marked(own, more)
        if word == "options terse-gateway":
            return option_lines(self.gateway.options)
        if word == "synopsis terse-gateway":
            return [r"\fBterse\-gateway\fR " + plain(self.gateway.arguments)]
        if word == "options terse":
            return option_lines(self.terse.options)
        if word == "commands":
            out = []
            for name, about in self.terse.commands:
                out += [".TP", rf"\fBterse\-{plain(name)}\fR(1)", *prose(sentence(literal(about)))]
            return out
        if word.startswith("settings "):
            where = word.split()[1]
            return setting_lines([s for s in self.tersed.settings if s.where in (where, "both")])
        if word == "terse.h":
            return interface()
        if word == "synopsis tersed":
            return [r"\fBtersed\fR " + plain(self.tersed.arguments)]
        raise SystemExit(f"a page's source has {{{{{word}}}}}, which nobody here knows")

    def fill(self, source):
        """Sources with placeholders: pieces between them are translated one by one."""
        lines = []
        for i, piece in enumerate(re.split(r"^\{\{(.*?)\}\}$", source, flags=re.M)):
            lines += self.placeholder(piece) if i % 2 else body(piece) if piece.strip() else []
        return lines

    def page(self, page):
        self.write(page, ABOUT[page], self.fill(self.source(page)))

    def command(self, program, about):
        """NAME, SYNOPSIS, DESCRIPTION and OPTIONS from the table; text and sections of the source where there is one."""
        page = program.page + ".1"
        source = self.source(page) or ""
        intro, sections = re.match(r"(.*?)(^# .*)?\Z", source, re.S | re.M).groups()
        lines = [".SH SYNOPSIS", r"\fB" + plain(program.name) + r"\fR " + plain(program.arguments), ".SH DESCRIPTION",
                 *(line.replace("\0", "*") for line in prose(literal(program.about)))]
        if intro.strip():
            lines += [".PP", *body(intro)]
        lines += [".SH OPTIONS", *option_lines(program.options)]
        if sections:
            lines += self.fill(sections)
        lines += body(STATUS)
        if any(o.name == "--endpoint" for o in program.options):
            lines += body(ENVIRONMENT)
        others = ["*terse*(1)"] + (["*tersed*(8)"] if "ENDPOINT" in program.arguments else ["*terse-model*(5)"])
        lines += body("# SEE ALSO\n" + ", ".join(others))
        self.write(page, about, lines)

    def all(self):
        os.makedirs(self.out, exist_ok=True)
        for page in ABOUT:
            self.page(page)
        for program, (_, about) in zip(self.subcommands, self.terse.commands):
            self.command(program, about)


def option_lines_marked(own, more):
    """Options that are settings say so, with a reference that is markup."""
    out = option_lines(own)
    for o in more:
        head, _, reference = o.help.rpartition(" (see ")
        out += option_lines([o._replace(help=head)])
        out += prose("See " + reference.rstrip(")").replace(" in *tersed.conf*(5", " in *tersed.conf*(5)") + ".")
    return out


def interface():
    """The declarations of client/terse.h with what it says of them, part by part."""
    text = open(os.path.join(ROOT, "client", "terse.h"), encoding="utf-8").read()
    text = text[text.index("/* Status codes"):text.index("#ifdef __cplusplus\n}")]
    out, at, title = [], 0, False
    token = re.compile(r"/\*(.*?)\*/[ ]*\n|([^\n]*\n)", re.S)
    code = []

    def flush():
        lines = "".join(code).strip("\n").replace("TERSE_API ", "").split("\n")
        code.clear()
        lines = [line for line in lines if not line.startswith(("#ifndef", "#endif", "#if ", "#else"))
                 and line.strip() not in ("#define TERSE_STATUS_CODES", "#define TERSE_DTYPE_CODES")]
        lines = [re.sub(r" +\\$", r" \\", line) for line in lines]
        if any(line.strip() for line in lines):
            out.extend([".PP", ".EX", *(guard(plain(line)) for line in lines), ".EE"])

    depth = 0
    for match in token.finditer(text):
        comment, line = match.groups()
        at_line_start = match.start() == 0 or text[match.start() - 1] == "\n"
        if comment is not None and at_line_start and depth == 0:
            flush()
            words = " ".join(w.strip().lstrip("*").strip() for w in comment.split("\n")).strip()
            part = re.fullmatch(r"-+ (.*?) -+", words)
            if part:
                out.append(f'.SS "{plain(part.group(1))}"')
            else:
                out.append(".PP")
                out.extend(comment_lines(comment))
        else:
            whole = match.group(0)
            depth += whole.count("{") - whole.count("}")
            code.append(whole)
    flush()
    return [line for i, line in enumerate(out) if not (line == ".PP" and i and out[i - 1].startswith(".SS"))]


def comment_lines(comment):
    """Paragraphs of a comment; lines that are set in stay as they are."""
    lines = [re.sub(r"^ ?\*? ?", "", line, count=1) if i else line.strip() for i, line in enumerate(comment.split("\n"))]
    out, text, code = [], [], []

    def end_text():
        if text:
            escaped = " ".join(text).replace("*", "\0")
            out.extend([".PP"] if out else [])
            out.extend(line.replace("\0", "*") for line in prose(escaped))
            text.clear()

    def end_code():
        if code:
            out.extend(verbatim(code))
            code.clear()

    for line in lines:
        if line.startswith("    "):
            end_text()
            code.append(line[4:])
        elif line.strip():
            end_code()
            text.append(line.strip())
        else:
            end_text()
            end_code()
    end_text()
    end_code()
    return out


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: make_man.py BUILD OUT")
    Maker(sys.argv[1], sys.argv[2]).all()
