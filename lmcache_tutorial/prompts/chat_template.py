"""A chat template and what it may use, as transformers' ``apply_chat_template`` sets it up. jinja2 only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2.ext
from jinja2 import Template, TemplateError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

IMAGE_MARK = "\ue001"  # stands around the digest of an image, in a text that a log brings
MAX_CHARACTERS = 32_000_000  # no model reads as much; a template that loops stops here
TOOL_USE, DEFAULT = "tool_use", "default"


class ChatTemplate:
    """One or several named Jinja templates, and the special tokens that they may write."""

    def __init__(self, source: str | Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        """Take a template, or templates by name, of which ``tool_use`` is for requests with tools.

        Args:
            source: the text of a template, or one text for each name.
            special_tokens: ``bos_token``, ``eos_token`` and so on, as templates name them.
        """
        self._sources = {DEFAULT: source} if isinstance(source, str) else dict(source)
        self._tokens = dict(special_tokens)
        self._compiled: dict[str, Template] = {}

    def render(self, messages: Sequence[Any], tools: Sequence[Any], variables: Mapping[str, Any]) -> str:
        """Render a request up to where the answer begins.

        Raises:
            TemplateError: the template refuses the request, or writes without end.
        """
        known = {
            "messages": list(messages),
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": True,
        }
        pieces, length = [], 0
        for piece in self._chosen(bool(tools)).generate({**self._tokens, **variables, **known}):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise TemplateError(f"it writes more than {MAX_CHARACTERS:,} characters")
        return "".join(pieces)

    def _chosen(self, tools: bool) -> Template:
        name = TOOL_USE if tools and TOOL_USE in self._sources else DEFAULT
        if name not in self._sources:
            raise TemplateError(f"there is no default among the templates {', '.join(sorted(self._sources))}")
        if name not in self._compiled:
            self._compiled[name] = _environment().from_string(self._sources[name])
        return self._compiled[name]

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it loops over the parts of a content: vLLM then hands it parts, else one text."""
        return any(_loops_over_content(tree) for tree in self._trees)

    @cached_property
    def fields(self) -> frozenset[str]:
        """All variables, attributes and keys that it reads: what it does not name, it cannot write."""
        found: set[str] = set()
        for tree in self._trees:
            found |= {node.attr for node in tree.find_all(nodes.Getattr)}
            found |= {node.name for node in tree.find_all(nodes.Name)}
            found |= {str(node.value) for node in tree.find_all(nodes.Const)}
        return frozenset(found)

    @cached_property
    def _trees(self) -> list[nodes.Template]:
        environment = _environment()
        trees = []
        for source in self._sources.values():
            try:
                trees.append(environment.parse(source))
            except TemplateError:  # told when it is rendered
                continue
        return trees


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what the model said, for training; its content is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

    def _keep(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    # As transformers sets up its sandbox: these decide about white space, and so about tokens.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _loops_over_content(tree: nodes.Template) -> bool:
    """Tell whether a template loops over a content, as vLLM 0.32 decides it (``renderers/hf.py``).

    That is a loop over ``message.content``, over a variable named ``content``, or over the parameter of a
    macro that is called with ``message.content``.
    """
    names = _message_names(tree)
    inside = {id(loop) for macro in tree.find_all(nodes.Macro) for loop in macro.find_all(nodes.For)}
    for loop in tree.find_all(nodes.For):
        if _reads_content(loop.iter, names):
            return True
        if id(loop) not in inside and isinstance(loop.iter, nodes.Name) and loop.iter.name == "content":
            return True
    return any(_macro_loops(tree, macro, names) for macro in tree.find_all(nodes.Macro))


def _message_names(tree: nodes.Template) -> set[str]:
    """Return the names of loop variables that are messages."""
    lists, grown = {"messages"}, True
    while grown:
        found = {
            assign.target.name
            for assign in tree.find_all(nodes.Assign)
            if isinstance(assign.target, nodes.Name) and _base_name(assign.node) in lists
        }
        grown = not found <= lists
        lists |= found
    return {
        loop.target.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.target, nodes.Name) and _base_name(loop.iter) in lists
    }


def _base_name(node: nodes.Node | None) -> str:
    """Return the variable that is filtered or sliced."""
    while isinstance(node, nodes.Filter | nodes.Test | nodes.Getitem):
        if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
            return ""
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""


def _macro_loops(tree: nodes.Template, macro: nodes.Macro, names: set[str]) -> bool:
    given = set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
            given |= set(_content_parameters(call, macro, names))
    return any(
        isinstance(loop.iter, nodes.Name) and loop.iter.name in given for loop in macro.find_all(nodes.For)
    )


def _content_parameters(call: nodes.Call, macro: nodes.Macro, names: set[str]) -> Iterator[str]:
    for parameter, argument in zip(macro.args, call.args, strict=False):
        if _reads_content(argument, names):
            yield parameter.name
    for keyword in call.kwargs:
        if _reads_content(keyword.value, names):
            yield keyword.key


def _reads_content(node: nodes.Node | None, names: set[str]) -> bool:
    while isinstance(node, nodes.Filter | nodes.Test):
        node = node.node
    if isinstance(node, nodes.Getitem):
        named = isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    elif isinstance(node, nodes.Getattr):
        named = node.attr == "content"
    else:
        return False
    return named and isinstance(node.node, nodes.Name) and node.node.name in names
