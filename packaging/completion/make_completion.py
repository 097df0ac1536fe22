#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make_completion.py BUILD OUT: bash and zsh completion of terse, tersed and terse-gateway out of their own tables.

Writes OUT/bash/{terse,tersed,terse-gateway} and OUT/zsh/{_terse,_tersed,_terse-gateway}, named as the shells' directories want them.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "man"))
import tables  # noqa: E402

MODEL_FILES = "files:terse|onnx"


def kind(word):
    """What a value or an operand is, by the name that usage gives it: files of some suffixes, a folder, words, nothing."""
    if re.fullmatch(r"[a-z][a-z0-9-]*(\|[a-z][a-z0-9-]*)+", word):
        return "words:" + word.replace("|", " ")
    suffixes = re.findall(r"\.(npz|terse|onnx|html)\b", word)
    if "npz" in suffixes:
        return "files:npz|npy"
    if suffixes == ["html"]:
        return "files:html"
    if suffixes:
        return MODEL_FILES
    if word.endswith("FILE") or word == "PATH":
        return "files:"
    return "folder" if word == "DIR" else "model" if word == "MODEL" else ""


def operands(program):
    """Kinds of what stands without an option, in order."""
    served = any(o.name == "--endpoint" for o in program.options)
    text = re.sub(r"(?<!\S)\[[^\]]*-[^\]]*\]|-o \S+|--\S+ \S+", " ", program.arguments.split(" | ")[0])
    words = [w.strip("[]") for w in text.split()]
    return ["model" if served and w == "NAME" else kind(w) for w in words if w != "options"]


def value_kind(option):
    return kind(option.argument) or "value" if option.argument else ""


def names(options):
    return [n for o in options for n in (o.letter, o.name) if n]


BASH = r"""# Made by packaging/completion/make_completion.py out of the programs' own tables.
# bash completion of @NAME@.

# Folders, and files that end in one of the words of $1, parted by |; all files when it is empty.
_@NAME@_files() {
    local word
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do
        if [[ -d $word || -z $1 || $word =~ \.($1)$ ]]; then COMPREPLY+=("$word"); fi
    done < <(compgen -f -- "$cur")
}

# The models that the daemon serves, if it answers at once.
_@NAME@_models() {
    local names
    names=$("$program" status "${endpoint[@]}" --connect-ms 200 2>/dev/null </dev/null | while read -r name rest; do
        [[ -n $name ]] || break
        [[ $name == MODEL ]] || printf '%s\n' "$name"
    done)
    COMPREPLY+=($(compgen -W "$names" -- "$cur"))
}

_@NAME@_offer() {
    case $1 in
    files:*) _@NAME@_files "${1#files:}" ;;
    folder) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- "$cur")) ;;
    words:*) COMPREPLY+=($(compgen -W "${1#words:}" -- "$cur")) ;;
    model) _@NAME@_models ;;
    esac
}

# What options of a command take (nothing: no value), and its operands in order.
declare -gA _@NAME@_values=(
@VALUES@
)
declare -gA _@NAME@_options=(
@OPTIONS@
)
declare -gA _@NAME@_operands=(
@OPERANDS@
)

_@NAME@() {
    local cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} command=@FIRST@ word taken kind i at=0
    local -a endpoint=() operands
    COMPREPLY=()
    if [[ $command == '?' ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W "@COMMANDS@" -- "$cur"))
            return
        fi
        command=${COMP_WORDS[1]}
        i=2
    else
        i=1
    fi
    # bash parts --option=value into three words.
    for ((; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        taken=${_@NAME@_values[$command $word]-}
        if [[ -n $taken ]]; then
            [[ ${COMP_WORDS[i + 1]-} == = ]] && ((i++))
            if ((i + 1 >= COMP_CWORD)); then
                [[ $cur == = ]] && cur=
                _@NAME@_offer "$taken"
                return
            fi
            [[ $word == -e || $word == --endpoint ]] && endpoint=(-e "${COMP_WORDS[i + 1]}")
            ((i++))
        elif [[ $word != -* ]]; then
            ((at++))
        fi
    done
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "${_@NAME@_options[$command]-}" -- "$cur"))
        return
    fi
    read -ra operands <<<"${_@NAME@_operands[$command]-}"
    kind=${operands[at]-}
    [[ -n $kind ]] && _@NAME@_offer "$kind"
}
complete -F _@NAME@ @NAME@
"""


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def bash(name, commands, first, words):
    """`commands` maps a command (the name of a program without any) to its Program-like options and operands."""
    values, options, operand = [], [], []
    for command, (table, places) in commands.items():
        for o in table:
            for n in (o.letter, o.name):
                if n and o.argument:
                    values.append(f"    [{quote(f'{command} {n}')}]={quote(value_kind(o))}")
        options.append(f"    [{quote(command)}]={quote(' '.join(names(table)))}")
        operand.append(f"    [{quote(command)}]={quote(' '.join(p or '-' for p in places))}")
    text = BASH
    for mark, value in (("@VALUES@", "\n".join(values)), ("@OPTIONS@", "\n".join(options)),
                        ("@OPERANDS@", "\n".join(operand)), ("@FIRST@", quote(first)), ("@COMMANDS@", words),
                        ("@NAME@", name)):
        text = text.replace(mark, value)
    return text


def zsh_text(text):
    return re.sub(r"([\[\]:'\\])", lambda m: "'\\''" if m.group(1) == "'" else "\\" + m.group(1), text)


def zsh_action(what, models):
    if what.startswith("files:"):
        suffixes = what[len("files:"):]
        return f'_files -g "*.({suffixes})(-.)"' if suffixes else "_files"
    if what.startswith("words:"):
        return f"({what[len('words:'):]})"
    return {"folder": "_files -/", "model": models}.get(what, " ")


def zsh_specs(options, places, models):
    out = []
    for o in options:
        text = f"[{zsh_text(o.help)}]"
        value = f":{zsh_text(o.argument)}:{zsh_action(value_kind(o), models)}" if o.argument else ""
        for n in (o.letter, o.name):
            if n:
                repeat = "*" if "NAME=" in o.argument or "several times" in o.help else ""
                out.append(f"'{repeat}{n}{text}{value}'")
    out += [f"'{i}:{p.split(':')[0] or 'value'}:{zsh_action(p, models)}'" for i, p in enumerate(places, 1)]
    return " \\\n            ".join(out)


def zsh_terse(terse, subcommands):
    lines = ["#compdef terse", "# Made by packaging/completion/make_completion.py out of the programs' own tables.", "",
             "_terse_models() {", "    local -a names",
             "    names=(${(f)\"$(terse status --connect-ms 200 2>/dev/null | awk '!NF { exit } NR > 1 { print $1 }')\"})",
             "    compadd -a names", "}", "", "_terse() {", "    local -a commands", "    commands=("]
    lines += [f"        '{n}:{zsh_text(about)}'" for n, about in terse.commands]
    lines += ["    )", "    if (( CURRENT == 2 )); then",
              "        _describe command commands", f"        compadd -- {' '.join(names(terse.options))}", "        return",
              "    fi", "    local command=$words[2]", "    shift words", "    (( CURRENT-- ))", "    case $command in"]
    for program, (name, _) in zip(subcommands, terse.commands):
        lines += [f"    {name})", "        _arguments -S \\\n            " +
                  zsh_specs(program.options, operands(program), "_terse_models"), "        ;;"]
    lines += ["    esac", "}", "", '_terse "$@"']
    return "\n".join(lines) + "\n"


def zsh_program(name, options):
    return "\n".join([f"#compdef {name}", "# Made by packaging/completion/make_completion.py out of the program's own table.",
                      "", "_arguments -S \\\n    " + zsh_specs(options, [], " ").replace(" \\\n            ", " \\\n    ")]) + "\n"


def main(build, out):
    terse, subcommands, tersed = tables.everything(build)
    gateway = tables.gateway(build)
    settings = [tables.Option("", s.option, s.argument, s.help) for s in tersed.settings if s.option]
    options = tersed.options + settings
    commands = {n: (p.options, operands(p)) for p, (n, _) in zip(subcommands, terse.commands)}
    words = " ".join([n for n, _ in terse.commands] + names(terse.options))
    files = {"bash/terse": bash("terse", commands, "?", words), "bash/tersed": bash("tersed", {"tersed": (options, [])}, "tersed", ""),
             "zsh/_terse": zsh_terse(terse, subcommands), "zsh/_tersed": zsh_program("tersed", options),
             # A hyphen is no letter of a shell's names.
             "bash/terse-gateway": bash("terse_gateway", {"terse-gateway": (gateway.options, [])}, "terse-gateway", "").replace(
                 "complete -F _terse_gateway terse_gateway", "complete -F _terse_gateway terse-gateway"),
             "zsh/_terse-gateway": zsh_program("terse-gateway", gateway.options)}
    for name, text in files.items():
        path = os.path.join(out, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: make_completion.py BUILD OUT")
    main(sys.argv[1], sys.argv[2])
