"""When a program is analysed: ``import greenlet`` means gevent's, the real one stays outside."""


def pre_safe_import_module(api):
    api.add_alias_module("gevent._greenlet", "greenlet")
