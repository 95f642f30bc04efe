"""What other tests stand on: servers that can be restarted, workers that leave nothing, a browser that stays here."""

import urllib.error

import psutil
import pytest
from browser import browser_page
from prefect_servers import prefect_server, worker


def test_a_server_its_worker_and_its_pages(tmp_path):
    with prefect_server(tmp_path) as server:
        with worker(server, "a-pool", tmp_path) as process:
            (one,) = server.post("/work_pools/a-pool/workers/filter", {})
            assert one["status"] == "ONLINE"
            tree = [process.pid, *(child.pid for child in process.children(recursive=True))]
        assert not [pid for pid in tree if psutil.pid_exists(pid)]
        with browser_page() as page:
            refused = []
            page.on("requestfailed", lambda request: refused.append(request.url))
            page.goto(f"{server.ui}/work-pools")
            page.get_by_text("a-pool").first.wait_for()
            page.evaluate("fetch('http://192.0.2.1/').catch(() => 0)")
            assert "http://192.0.2.1/" in refused
            assert all(not url.startswith(server.ui) for url in refused)
        port = int(server.api.removesuffix("/api").rpartition(":")[2])
    with pytest.raises(urllib.error.URLError):
        server.get("/health")
    with prefect_server(tmp_path, port=port) as again:
        assert again.get("/work_pools/a-pool")["name"] == "a-pool"
