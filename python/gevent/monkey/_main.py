"""Running a program that knows nothing of gevent with everything patched."""

_USAGE = """\
gevent.monkey - monkey patch the standard modules to use gevent.

USAGE: ``python -m gevent.monkey [MONKEY OPTIONS] [--module] (script|module) [SCRIPT OPTIONS]``

Without MONKEY OPTIONS everything is patched that ``patch_all()`` patches. ``--no-<module>``
leaves one module out; ``--<module>`` names one to patch, and then only the modules so named are.

What follows is run as the interpreter would run it: a file, a directory or archive with a
``__main__.py``, or, after ``--module``, a module by name.

MONKEY OPTIONS: ``--verbose %s``"""


def _get_script_help():
    """``(help text, names of patch_all's arguments, those that are modules)``."""
    import inspect

    from gevent import monkey

    arguments = inspect.getfullargspec(monkey.patch_all)[0]
    modules = [name for name in arguments if hasattr(monkey, "patch_" + name)]
    return _USAGE % ", ".join("--[no-]%s" % name for name in modules), arguments, modules


def main():
    import runpy
    import sys

    from gevent import monkey

    usage, patch_all_args, modules = _get_script_help()
    argv = sys.argv[1:]
    args = {}
    verbose = False
    run = runpy.run_path
    while argv and argv[0].startswith("--"):
        option = argv.pop(0)[2:]
        if option == "verbose":
            verbose = True
        elif option == "module":
            run = runpy.run_module
        elif option.startswith("no-") and option[3:] in patch_all_args:
            args[option[3:]] = False
        elif option in patch_all_args:
            args[option] = True
            if option in modules:
                for module in modules:
                    args.setdefault(module, False)
        else:
            sys.exit("%s\n\nCannot patch %r" % (usage, option))

    if verbose:
        import os
        import pprint

        print("gevent.monkey.patch_all(%s)" % ", ".join("%s=%s" % item for item in args.items()))
        print("sys.version=%s" % sys.version.strip().replace("\n", " "))
        print("sys.path=%s" % pprint.pformat(sys.path))
        print("sys.modules=%s" % pprint.pformat(sorted(sys.modules)))
        print("cwd=%s" % os.getcwd())

    if not argv:
        print(usage)
        return None

    sys.argv[:] = argv
    monkey.patch_all(**args)
    return run(argv[0], run_name="__main__")


main.__doc__ = _USAGE
