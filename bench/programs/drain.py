"""What forwarding costs without any guarantee: drains NOTIFY with psycopg and pipelines PUBLISH.

`python -m bench.programs.drain CHANNEL`; no ids, no stream, no buffer: what Redis doesn't take is lost.
"""

import os
import sys

import psycopg
import redis


def main(channel: str) -> None:
    """Forwards until it is ended."""
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect("", autocommit=True) as connection:
        connection.execute("LISTEN match_change")
        sys.stdout.write("listening\n")
        while True:
            pipeline = client.pipeline(transaction=False)
            for notification in connection.notifies(timeout=60, stop_after=1):  # with all that came in one read
                text = f'{{"channel": "{notification.channel}", "payload": {notification.payload}}}'
                pipeline.publish(channel, text)  # nobody looked whether it is JSON
            pipeline.execute()


if __name__ == "__main__":
    main(sys.argv[1])
