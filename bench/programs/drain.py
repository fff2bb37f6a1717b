"""Forwarding without any guarantee: reads notifications with psycopg and pipelines PUBLISH.

`python -m bench.programs.drain CHANNEL`. It has no ids, no stream and no buffer; events are lost if Redis fails.
"""

import os
import sys

import psycopg
import redis


def main(channel: str) -> None:
    """Forward until the process is killed."""
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute("LISTEN match_change")
        sys.stdout.write("listening\n")
        while True:
            pipeline = client.pipeline(transaction=False)
            for notification in connection.notifies(timeout=60, stop_after=1):  # all of one read
                text = f'{{"channel": "{notification.channel}", "payload": {notification.payload}}}'
                pipeline.publish(channel, text)  # not validated
            pipeline.execute()


if __name__ == "__main__":
    main(sys.argv[1])
