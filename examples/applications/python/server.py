"""Takes batches of orders, and says of each what became of it."""
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handle(order):
    if not order["item"]:
        raise ValueError("an order needs an item")


class Orders(BaseHTTPRequestHandler):
    def do_POST(self):
        if self.path != "/orders":
            return self.send_error(404)
        batch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        verdict = {"explicitAcks": [], "retryMessages": []}
        for message in batch["messages"]:
            try:
                handle(message["body"])
                verdict["explicitAcks"].append(message["id"])
            except Exception as error:
                print(f"message {message['id']} failed, attempt {message['attempts']}: {error!r}", flush=True)
                verdict["retryMessages"].append({"msgId": message["id"], "delaySeconds": message["attempts"]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(verdict).encode())


server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Orders)
server.daemon_threads = False  # Open requests are finished.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
