"""The application whose worker `test_celery.py` runs with ``-P gevent``."""

import os
import time

import redis
from celery import Celery

url = os.environ["PROGRAMS_REDIS"].rpartition("/")[0]
client = redis.Redis.from_url(os.environ["PROGRAMS_REDIS"])
app = Celery("programs", broker=url + "/1", backend=url + "/2")
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=300,
    task_ignore_result=False,
    worker_hijack_root_logger=False,
)


@app.task
def add(a, b):
    time.sleep(0.001)
    return a + b


@app.task(ignore_result=True)
def add_up(prefix, n):
    time.sleep(0.001)
    with client.pipeline() as pipe:
        pipe.incrby(prefix + "sum", n)
        pipe.incr(prefix + "count")
        pipe.execute()


@app.task(bind=True, max_retries=3)
def fails_once(self, key):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries
