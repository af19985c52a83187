"""hostagent.v1.HostAgentService by the Connect protocol with JSON, as the control plane would call it."""
import httpx


class RpcFailure(AssertionError):
    def __init__(self, method, response):
        self.status = response.status_code
        try:
            self.code = response.json().get("code", "")
        except ValueError:
            self.code = ""
        super().__init__(f"{method} answered {response.status_code}: {response.text[:600]}")


class AgentRpc:
    def __init__(self, base_url, secret, limit_sec=60):
        headers = {"Connect-Protocol-Version": "1"}
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        self.http = httpx.Client(base_url=base_url + "/hostagent.v1.HostAgentService", headers=headers,
                                 timeout=httpx.Timeout(limit_sec), trust_env=False)

    def call(self, method, **fields):
        response = self.http.post(f"/{method}", json=fields)
        if response.status_code != 200:
            raise RpcFailure(method, response)
        return response.json()

    def list(self):
        """Sandboxes by id, and the ids that were auto-paused and not acknowledged."""
        answer = self.call("ListSandboxes")
        return ({each["sandboxId"]: each for each in answer.get("sandboxes", [])},
                set(answer.get("autoPausedSandboxIds", [])))

    def sandbox(self, sandbox_id):
        return self.list()[0].get(sandbox_id)

    def status(self, sandbox_id):
        found = self.sandbox(sandbox_id)
        return found["status"] if found else None

    def close(self):
        self.http.close()
