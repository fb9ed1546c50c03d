"""An HTTP client: fetches all addresses that it is given at the same time.

fetch.py URL...

The client is the standard library's; patching is what makes it cooperative.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402

from gevent.pool import Pool  # noqa: E402


def fetch(url):
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            body = answer.read()
            text = "%d %d bytes of %s" % (answer.status, len(body), answer.headers["Content-Type"])
    except (OSError, ValueError) as ex:
        return url, False, str(ex)
    return url, True, "%s in %.0f ms" % (text, (time.monotonic() - begun) * 1000)


def main(urls):
    failed = 0
    for url, good, text in Pool(100).imap(fetch, urls):
        failed += not good
        print("%s: %s" % (url, text), file=sys.stdout if good else sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: fetch.py URL...")
    sys.exit(main(sys.argv[1:]))
