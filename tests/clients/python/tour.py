"""Goes through the calls of Cloudflare's Python SDK, which types every number as float, and prints what it returned.

The queue is empty, has a pull consumer, and its retries are due at once.
Arguments: BASE_URL (ending in /client/v4) ACCOUNT QUEUE.
"""

import json
import sys

from cloudflare import BadRequestError, Cloudflare, NotFoundError


def refused(call, kind):
    """The status and the first code of a call that must be refused with `kind`."""
    try:
        call()
    except kind as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.errors[0].code}
    return None


def main(base_url, account, queue):
    client = Cloudflare(api_token="any", base_url=base_url)
    queues = client.queues
    messages = queues.messages
    told = {
        "list": [q.queue_name for q in queues.list(account_id=account)],
        "get": queues.get(queue, account_id=account).queue_id,
    }
    empty = queues.get_metrics(queue, account_id=account)
    told["unknown_age"] = [empty.backlog_count, empty.oldest_message_timestamp_ms]
    consumer = next(iter(queues.consumers.list(queue, account_id=account)))
    same = queues.consumers.get(consumer.consumer_id, account_id=account, queue_id=queue)
    told["consumer"] = {"type": same.type, "same": same == consumer, "max_retries": same.settings.max_retries}
    push = messages.push(queue, account_id=account, body={"n": 1}, content_type="json", delay_seconds=0.0)
    told["push"] = push.metadata.metrics.backlog_count
    batch = [{"body": "two", "content_type": "text"}, {"body": {"n": 3}, "delay_seconds": 3600.0}]
    told["bulk_push"] = messages.bulk_push(queue, account_id=account, messages=batch).metadata.metrics.backlog_count
    peeked = messages.peek(queue, account_id=account, batch_size=2.0).messages
    told["peek"] = [{"body": m.body, "metadata": m.metadata, "has_ref": bool(m.ref)} for m in peeked]
    pulled = messages.pull(queue, account_id=account, batch_size=10.0, visibility_timeout_ms=60000.0).messages
    told["pull"] = [{"body": m.body, "attempts": m.attempts, "metadata": m.metadata} for m in pulled]
    retries = [{"lease_id": pulled[0].lease_id, "delay_seconds": 0.0}]
    acks = [{"lease_id": m.lease_id} for m in pulled[1:]]
    ack = messages.ack(queue, account_id=account, acks=acks, retries=retries)
    told["ack"] = {"ack_count": ack.ack_count, "retry_count": ack.retry_count, "warnings": ack.warnings}
    again = messages.pull(queue, account_id=account).messages
    told["again"] = [m.attempts for m in again]
    messages.ack(queue, account_id=account, acks=[{"lease_id": m.lease_id} for m in again])
    settled = {"acks": [{"lease_id": m.lease_id} for m in again]}
    told["ack_twice"] = len(messages.ack(queue, account_id=account, **settled).warnings)
    told["metrics"] = queues.get_metrics(queue, account_id=account).backlog_count
    told["unknown_queue"] = refused(lambda: messages.push("nowhere", account_id=account, body={}), NotFoundError)
    told["half_a_message"] = refused(lambda: messages.pull(queue, account_id=account, batch_size=1.5), BadRequestError)
    print(json.dumps(told))


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[1].rstrip("/").endswith("/client/v4"):
        sys.exit(f"usage: {sys.argv[0]} http://HOST:PORT/client/v4 ACCOUNT QUEUE")
    main(*sys.argv[1:])
