"""The outside systems of one process, opened from the settings: composition for the command line and for Dagster."""

from dataclasses import dataclass
from functools import cached_property

from release_platform.adapters.addresses import each_server
from release_platform.adapters.mlflow_registry import MlflowRegistry
from release_platform.adapters.mlflow_tracking import MlflowTracking
from release_platform.adapters.recordings import Recordings
from release_platform.adapters.release_store import ReleaseStore
from release_platform.adapters.servers import Servers
from release_platform.adapters.signing import KeyFolder
from release_platform.adapters.snapshot_store import SnapshotStore
from release_platform.held_outcomes import HeldOutcomes
from release_platform.releases import Releases
from release_platform.replays import Replays
from release_platform.rollouts import Rollouts
from release_platform.sampled_traffic import SampledTraffic
from release_platform.settings import Settings
from release_platform.watch import Watch


@dataclass(frozen=True)
class Services:
    """Each is opened when it is first asked for."""

    settings: Settings

    @cached_property
    def store(self) -> ReleaseStore:
        """The release store."""
        return ReleaseStore(self.settings.release_store_url)

    @cached_property
    def registry(self) -> MlflowRegistry:
        """The model registry."""
        return MlflowRegistry(self.settings.tracking_uri)

    @cached_property
    def tracking(self) -> MlflowTracking:
        """MLflow's runs."""
        return MlflowTracking(self.settings.tracking_uri, self.settings.artifact_root, self.store)

    @cached_property
    def snapshots(self) -> SnapshotStore:
        """The data snapshots."""
        return SnapshotStore(self.settings.snapshot_root)

    @cached_property
    def recordings(self) -> Recordings:
        """The recorded requests."""
        return Recordings(self.settings.recording_root)

    @cached_property
    def labels(self) -> Recordings:
        """The labels of recorded requests, by the day on which they came."""
        return Recordings(self.settings.label_root)

    @cached_property
    def calls(self) -> Recordings:
        """How many calls came for each version, and were refused, by day."""
        return Recordings(self.settings.call_root)

    @cached_property
    def keys(self) -> KeyFolder:
        """The keys that sign and that are trusted."""
        return KeyFolder(self.settings.key_folder, self.settings.signing_key.get_secret_value())

    @property
    def server_urls(self) -> tuple[str, ...]:
        """The address of each live server that there is now."""
        return each_server(self.settings.serving_urls)

    @cached_property
    def servers(self) -> Servers:
        """The live servers."""
        return Servers(self.settings.serving_urls, api_key=self.settings.admin_key)

    @cached_property
    def releases(self) -> Releases:
        """Registering, promoting, rolling back."""
        return Releases(self.store, self.registry, self.keys, servers=self.servers)

    @cached_property
    def sampled_traffic(self) -> SampledTraffic:
        """What the live servers sample of their requests, for the recordings."""
        return SampledTraffic(self.recordings, self.labels, self.servers, calls=self.calls)

    @cached_property
    def held_outcomes(self) -> HeldOutcomes:
        """What the live servers hold of outcomes for each other; to tell one takes the key that predicts."""
        key = self.settings.serving_api_key.get_secret_value()
        return HeldOutcomes(Servers(self.settings.serving_urls, api_key=key))

    @cached_property
    def replays(self) -> Replays:
        """Recorded requests, answered by Production and by a candidate."""
        return Replays(self.releases, self.recordings)

    @cached_property
    def rollouts(self) -> Rollouts:
        """Bringing a version into Production stage by stage."""
        return Rollouts(self.releases, self.servers)

    @cached_property
    def watch(self) -> Watch:
        """Taking a version back by policy."""
        return Watch(self.releases, self.rollouts, self.servers)
