"""Every function and class of upstream's modules is here, private ones too, or it is said why not.

`upstream_surface.json` is what tests/tools/dump_surface.py wrote on upstream's release, for the
modules that are not about the network. Parameters and public names are the subject of test_api.py.
"""

import fnmatch
import importlib
import importlib.util
import inspect
import json
import pathlib

import pytest

UPSTREAM = json.loads(pathlib.Path(__file__).with_name("upstream_surface.json").read_text())

#: Why a name is missing -> patterns of such names.
DIFFERENCES = {
    "Glue for modules that are compiled with Cython": [
        "*:_init",
        "*:greenlet_init",
        "gevent.greenlet:Gevent_PyFrame_Get*",
    ],
    "How an object locks itself, knows its thread and hub, and notifies: done in another way": [
        "gevent._abstract_linkable:AbstractLinkable._*",
        "gevent._abstract_linkable:_FakeNotifier",
        "gevent._abstract_linkable:get_roots_and_hubs",
        "gevent._semaphore:Semaphore._handle_unswitched_notifications",
        "gevent._semaphore:Semaphore._multithreaded",
        "gevent._semaphore:_LockReleaseLink",
        "gevent.lock:*Semaphore._lock_lock",
        "gevent.lock:_Atomic*Semaphore*",
        "gevent.lock:_GILLock",
        "gevent.lock:atomic",
        "gevent.queue:*._event_unlock",
        "gevent.queue:SimpleQueue._*unlock",
        "gevent.queue:Channel._*unlock",
        "gevent.queue:_safe_remove",
        "gevent._threading:Queue._[mnq]*",
        "gevent._threading:_Condition",
        "gevent._threading:acquire_with_timeout",
    ],
    "Parts of a class that is native here": [
        "gevent._imap:IMapUnordered._ispawn",
        "gevent._semaphore:Semaphore._wait_return_value",
        "gevent.event:*._wait_return_value",
        "gevent.event:AsyncResult._*",
        "gevent.event:Event._*",
        "gevent.greenlet:Greenlet._get_minimal_ident",
        "gevent.greenlet:Greenlet._notify_links",
        "gevent.greenlet:_call_spawn_callbacks",
        "gevent.greenlet:_dummy_event",
        "gevent.greenlet:_extract_stack",
        "gevent.greenlet:_kill*",
        "gevent.greenlet:get_generic_parent",
        "gevent.greenlet:get_my_hub",
        "gevent.hub:Hub._[dgs]e[lt]_resolver",
        "gevent.hub:Hub._[dgs]e[lt]_threadpool",
    ],
    "A copy of the tblib package, of which two functions are used": ["gevent._tblib:*"],
    "Attributes are looked up by rules, not in sets made for each object": [
        "gevent.local:_*",
        "gevent.local:local._local_type*",
    ],
    "Hooks that the classes define which use the mixin": ["gevent.pool:GroupMappingMixin.*"],
    "State and helpers of a class that was written anew": [
        "gevent._patcher:_SysModulesPatcher._*",
        "gevent._patcher:cached_platform_architecture._*",
        "gevent.backdoor:_Greenlet_stdreplace.prev_*",
        "gevent.contextvars:Context._*",
        "gevent.contextvars:_ContextData",
        "gevent.threadpool:ThreadResult._call_when_ready",
        "gevent.threadpool:_FakeAsync",
        "gevent.threadpool:_wrap",
        "gevent.util:_*",
    ],
    "A name for Python 2": ["gevent.threading:_DummyThread._Thread_ident"],
}


def missing_from(module_name):
    module = importlib.import_module(module_name)
    for name, members in UPSTREAM[module_name].items():
        if not hasattr(module, name):
            yield f"{module_name}:{name}"
            continue
        value = getattr(module, name)
        for member in members or ():
            if not inspect.isclass(value) or not hasattr(value, member):
                yield f"{module_name}:{name}.{member}"


def excused(name):
    patterns = [pattern for group in DIFFERENCES.values() for pattern in group]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@pytest.mark.ours
@pytest.mark.parametrize("module_name", sorted(UPSTREAM))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_are_here_or_excused(module_name):
    assert [name for name in missing_from(module_name) if not excused(name)] == []


@pytest.mark.ours
def test_no_excuse_is_stale():
    missing = [name for module_name in UPSTREAM for name in missing_from(module_name)]
    stale = [
        pattern
        for group in DIFFERENCES.values()
        for pattern in group
        if not fnmatch.filter(missing, pattern)
    ]
    assert stale == []


#: Modules of upstream's that are neither in the list here nor in test_api.py's.
OTHERS = """
    gevent._ffi gevent._ffi.callback gevent._ffi.loop gevent._ffi.watcher gevent._fileobjectcommon
    gevent._fileobjectposix gevent._socket3 gevent._socketcommon gevent.libev gevent.libev.corecext
    gevent.libev.corecffi gevent.libev.watcher gevent.libuv gevent.libuv.loop gevent.libuv.watcher
    gevent.monkey._errors gevent.monkey._main gevent.monkey._patch_thread_common
    gevent.monkey._state gevent.monkey._util gevent.resolver._addresses gevent.resolver._hostsfile
    gevent.resolver.dnspython gevent.time gevent.win32util
""".split()

API = json.loads(pathlib.Path(__file__).with_name("upstream_api.json").read_text())


@pytest.mark.ours
@pytest.mark.parametrize("module_name", sorted({*OTHERS, *UPSTREAM, *API}))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_module_imports(module_name):
    if module_name in ("gevent.resolver.dnspython", "gevent.monkey.__main__"):
        # Looks for a package, or runs a program.
        assert importlib.util.find_spec(module_name) is not None
    else:
        assert importlib.import_module(module_name).__name__ == module_name
