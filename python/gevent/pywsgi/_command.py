"""The command: its arguments, and the application that they name.

    python -m gevent.pywsgi [options] package.module:application

The application may be a name in the module (also dotted), or a call: ``module:create_app('x')``.
"""

import argparse
import ast
import importlib
import os
import sys

import gevent

__all__ = ["main", "parse", "load"]

_DESCRIPTION = "Serves a WSGI application by gevent.pywsgi, in one or several processes."

_SIGNALS = """\
signals to the first process:
  HUP        new workers load the code anew; the old ones finish their requests and end
  TERM       finish the requests, then end
  INT, QUIT  end at once
  TTIN, TTOU one worker more, one less
"""


def parse(arguments=None):
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m gevent.pywsgi",
        description=_DESCRIPTION,
        epilog=_SIGNALS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("application", help="module:name, or module:factory(arguments)")
    add(
        "-b",
        "--bind",
        action="append",
        metavar="ADDRESS",
        help="HOST:PORT, PORT, [V6]:PORT or unix:PATH; may be given several times"
        " (default: 127.0.0.1:8000)",
    )
    add("-w", "--workers", type=_count, default=1, metavar="N", help="processes (default: 1)")
    add("--loop", metavar="NAME", help="the event loop, as GEVENT_LOOP names it")
    add("--certfile", metavar="PATH", help="serve HTTPS with this certificate")
    add("--keyfile", metavar="PATH", help="its key, if it is not in the same file")
    add(
        "--connections",
        type=_count,
        default=1000,
        metavar="N",
        help="that one worker serves at a time (default: 1000)",
    )
    add("--backlog", type=_count, default=2048, metavar="N", help="of the sockets (default: 2048)")
    add(
        "--graceful-timeout",
        type=float,
        default=30,
        metavar="S",
        help="seconds that requests have to finish when a worker ends (default: 30)",
    )
    add(
        "--timeout",
        type=float,
        default=0,
        metavar="S",
        help="kill a worker whose hub does not run for so many seconds (default: never)",
    )
    add("--access-log", metavar="PATH", help="a line for each request; - is standard error")
    add("--handler-class", metavar="MODULE:NAME", help="e.g. gevent.websocket:WebSocketHandler")
    add("--chdir", metavar="PATH", help="where to go before the application is loaded")
    add("--no-patch", action="store_true", help="leave the standard library blocking")
    options = parser.parse_args(arguments)
    options.bind = options.bind or ["127.0.0.1:8000"]
    if options.keyfile and not options.certfile:
        parser.error("--keyfile without --certfile")
    for path in (options.certfile, options.keyfile):
        if path and not os.access(path, os.R_OK):
            parser.error("cannot be read: " + path)
    return options


def _count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


def load(name):
    """The application that ``module:name`` or ``module:factory(...)`` names.

    Arguments of a factory are literals.
    """
    module_name, _, expression = name.partition(":")
    module = importlib.import_module(module_name)
    try:
        tree = ast.parse(expression or "application", mode="eval").body
    except SyntaxError:
        raise ValueError("neither a name nor a call: %r" % (expression,))
    call = tree if isinstance(tree, ast.Call) else None
    target = _attribute(module, call.func if call else tree, expression)
    if call:
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
        target = target(*positional, **named)
    if not callable(target):
        raise TypeError("%r is no application: %r" % (name, target))
    return target


def _attribute(module, node, expression):
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError("neither a name nor a call: %r" % (expression,))
    found = module
    for name in [node.id, *reversed(names)]:
        found = getattr(found, name)
    return found


def main(arguments=None):
    """Run the command; gives the exit code."""
    options = parse(arguments)
    if options.chdir:
        os.chdir(options.chdir)
    # As `python script.py` has it; -m has put the folder there already.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if options.loop:
        gevent.config.loop = options.loop
        os.environ["GEVENT_LOOP"] = options.loop
    from gevent.pywsgi._master import Master

    return Master(options).run()
