"""A crawler: follows the links of a site, several at a time, and reports the ones that are broken.

crawler.py URL [GREENLETS]        (stays on the host of URL)
"""

from gevent import monkey

monkey.patch_all()

import html.parser  # noqa: E402
import sys  # noqa: E402
import urllib.request  # noqa: E402
from urllib.parse import urldefrag, urljoin, urlsplit  # noqa: E402

import gevent  # noqa: E402
from gevent.queue import JoinableQueue  # noqa: E402

#: Pages at most: some sites never end.
PAGES = 10_000


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


class Crawl:
    def __init__(self, start):
        self.host = urlsplit(start).netloc
        self.queue = JoinableQueue()
        self.seen = set()
        self.broken = []
        self.found(start)

    def found(self, url):
        url = urldefrag(url).url
        parts = urlsplit(url)
        here = parts.scheme in ("http", "https") and parts.netloc == self.host
        if here and url not in self.seen and len(self.seen) < PAGES:
            self.seen.add(url)
            self.queue.put(url)

    def visit(self, url):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                text = answer.read().decode("utf-8", "replace")
                base = answer.url
        except OSError as ex:
            self.broken.append("%s: %s" % (url, ex))
            return
        print(url)
        links = Links()
        links.feed(text)
        for link in links.found:
            self.found(urljoin(base, link))

    def work(self):
        for url in self.queue:
            try:
                self.visit(url)
            finally:
                self.queue.task_done()


def main(start, greenlets=10):
    crawl = Crawl(start)
    workers = [gevent.spawn(crawl.work) for _ in range(greenlets)]
    # Until everything that was put has been dealt with.
    crawl.queue.join()
    gevent.killall(workers)
    print("%d pages" % (len(crawl.seen) - len(crawl.broken)))
    for line in crawl.broken:
        print("broken: " + line, file=sys.stderr)
    return 1 if crawl.broken else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: crawler.py URL [GREENLETS]")
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
