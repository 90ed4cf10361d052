"""A real S3-compatible server on this machine, and the environment that leads clients to it."""

import logging
import uuid
from contextlib import contextmanager

SECRET = "hush-hush-secret"


@contextmanager
def server():
    """Start moto's server on a free port; gives its endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        yield "http://{}:{}".format(*running.get_host_and_port())
    finally:
        running.stop()


def environment(endpoint):
    """Variables of a process that uses the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
    }


def client(endpoint):
    """boto3's client: independent of what is tested."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="tester",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


class Bucket:
    """An empty bucket, seen with boto3."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.client = client(endpoint)
        self.client.create_bucket(Bucket=self.name)

    @property
    def uri(self):
        return f"s3://{self.name}"

    @property
    def environment(self):
        return environment(self.endpoint)

    def keys(self, prefix=""):
        """Names of all objects, those that only mark folders left out."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sorted(key for key in keys if not key.endswith("/"))

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key, content):
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)
