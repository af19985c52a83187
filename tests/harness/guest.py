"""envd in a running sandbox, as the agent reaches it: HTTP and Connect (JSON), with the sandbox's token."""
import json
import struct

import httpx

PORT = 49983
LAST = 0x02  # flag of the envelope that ends a Connect stream


class Guest:
    def __init__(self, system, sandbox_id):
        with open(f"{system.sandboxes}/{sandbox_id}/journal.json", encoding="utf-8") as journal:
            record = json.load(journal)
        slot = record["slot"]
        self.url = f"http://10.11.{slot // 256}.{slot % 256}:{PORT}"
        self.token = record["token"]
        self.http = httpx.Client(base_url=self.url, headers={"X-Access-Token": self.token}, timeout=30, trust_env=False)

    def close(self):
        self.http.close()

    def request(self, method, path, **options):
        return self.http.request(method, path, **options)

    def call(self, procedure, **fields):
        """A unary call; answers its message."""
        response = self.http.post(f"/{procedure}", json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    def stream(self, procedure, headers=None, **fields):
        """The messages of a server stream; the last is {"end": {...}}."""
        body = json.dumps(fields).encode()
        framed = struct.pack(">BI", 0, len(body)) + body
        headers = {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1", **(headers or {})}
        with self.http.stream("POST", f"/{procedure}", content=framed, headers=headers) as response:
            assert response.status_code == 200, response.read()
            waiting = b""
            for chunk in response.iter_raw():
                waiting += chunk
                while len(waiting) >= 5:
                    flags, size = struct.unpack(">BI", waiting[:5])
                    if len(waiting) < 5 + size:
                        break
                    message, waiting = json.loads(waiting[5:5 + size] or b"{}"), waiting[5 + size:]
                    if flags & LAST:
                        yield {"end": message}
                        return
                    yield message
