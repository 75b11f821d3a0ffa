"""Create the named S3 buckets where they are missing: ``make_buckets.py NAME ...``.

Endpoint and keys come from the ``AWS_*`` environment. Waits up to a minute for the server.
"""

from __future__ import annotations

import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ATTEMPTS = 30
PAUSE_S = 2.0


def main(names: list[str]) -> int:
    """Create what is missing; 1 when the server does not let us."""
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for name in names:
                if name not in present:
                    client.create_bucket(Bucket=name)
                print(f"bucket {name}: {'was there' if name in present else 'created'}")
            return 0
        except (BotoCoreError, ClientError) as error:
            print(f"attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr)
            time.sleep(PAUSE_S)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
