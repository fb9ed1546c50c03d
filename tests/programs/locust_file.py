"""What the users of `test_load.py` and `tools/bench_programs.py` do."""

from locust import FastHttpUser, HttpUser, constant, task


class Plain(HttpUser):
    """A user with `requests`."""

    wait_time = constant(0)

    @task
    def page(self):
        self.client.get("/")


class Fast(FastHttpUser):
    """A user with geventhttpclient."""

    wait_time = constant(0)

    @task
    def page(self):
        self.client.get("/")
