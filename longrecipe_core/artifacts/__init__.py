"""Content-addressed artifacts on any fsspec filesystem: store, manifest, fingerprint; training state and
lease.
"""

from longrecipe_core.artifacts.digest import DigestMemory, digest_file, digest_url
from longrecipe_core.artifacts.fingerprint import canonical_json, fingerprint
from longrecipe_core.artifacts.lease import Lease, LeaseRecord
from longrecipe_core.artifacts.lineage import Lineage, lineage
from longrecipe_core.artifacts.manifest import Adopted, ArtifactRef, FileEntry, InputEntry, Manifest
from longrecipe_core.artifacts.runs import LiveRecord, RunRecord, RunRecords, StageRecord, new_record
from longrecipe_core.artifacts.state import TrainingState
from longrecipe_core.artifacts.store import ArtifactStore

__all__ = [
    "Adopted",
    "ArtifactRef",
    "ArtifactStore",
    "DigestMemory",
    "FileEntry",
    "InputEntry",
    "Lease",
    "LeaseRecord",
    "Lineage",
    "LiveRecord",
    "Manifest",
    "RunRecord",
    "RunRecords",
    "StageRecord",
    "TrainingState",
    "canonical_json",
    "digest_file",
    "digest_url",
    "fingerprint",
    "lineage",
    "new_record",
]
