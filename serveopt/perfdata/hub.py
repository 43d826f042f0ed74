"""Config files from Hugging Face, through the optional extra ``hub``.

The client retries an unreachable server for half a minute; so the server is looked for first, and without it
only the client's own cache is asked.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

FILES = ("config.json", "hf_quant_config.json")
TIMEOUT_S = 5


def download_config(name: str) -> tuple[Path | None, str]:
    """The local folder of the config files of ``name``, or None with a one-line hint why there is none."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError:
        return None, "other Hugging Face names need the extra: pip install 'serveopt[hub]'"
    online = _is_reachable()
    options = {"etag_timeout": TIMEOUT_S, "local_files_only": not online}
    try:
        config = hf_hub_download(name, FILES[0], **options)
        with suppress(EntryNotFoundError):  # most checkpoints have none
            hf_hub_download(name, FILES[1], **options)
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = reason if online else "the server is not reachable and the local cache has no such model"
        return None, f"Hugging Face did not give its config.json: {reason:.160}"
    return Path(config).parent, ""


def _is_reachable() -> bool:
    """True if the server answers, or if a proxy stands between."""
    if getproxies():
        return True
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
        socket.create_connection((endpoint.hostname or "", port), timeout=TIMEOUT_S).close()
    except (OSError, ValueError):
        return False
    return True
