"""Where things are: one settings class, read from the environment (prefix `RELEASE_`) and from defaults.

The embedded default needs no server: everything lives in one folder, `.release` in the current directory.
`RELEASE_PROFILE` chooses other defaults; `profiles.py` says which.
"""

import getpass
import os
import pwd
from functools import cached_property
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from release_platform.domain.errors import Refused
from release_platform.profiles import Places, Profile, dagster_storage, described, places_of, require, root_of, unset

NO_SERVER = "RELEASE_SERVING_URL names no server"
"""What is wrong where `Settings.serving_urls` is empty and a server is needed."""


def shipped(name: str) -> Path:
    """Returns a file that comes with the platform: from the clone, or from the installed package."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package.parent / name, package / "shipped" / name) if path.exists())


class Settings(BaseSettings):
    """Settings of the platform; every value has a working default, but in the profile `stack`.

    Attributes:
        profile: `embedded`, `local` or `stack`: what stands in for the settings that are empty.
        home: Folder of what is kept in files.
        models: Folder with a team's own models, beside the examples; it need not exist.
        mlflow_tracking_uri: MLflow server or database; empty: the profile's.
        store_url: SQLAlchemy URL of the release store; empty: the profile's.
        snapshots: Folder or `s3://bucket/prefix` of data snapshots; empty: the profile's.
        keys: Folder of the signing key and of the trusted public keys; empty: in `home`.
        signing_key: The private key that signs, in PEM, or the path of a file with it; empty: `signing.pem` in `keys`,
            made on first use.
        api_keys: The file of the API keys that callers show to the servers; empty: `api-keys.json` in `keys`.
        serving_url: Where the serving application answers; several servers separated by commas. `dns+http://NAME:PORT`
            stands for every server behind a name.
        serving_api_key: The API key that these servers ask for, with the scopes predict and read; empty for none.
        serving_admin_key: The API key with the scopes read and admin, by which counts and samples of live traffic are
            fetched; empty: `serving_api_key`.
        drill_cron: When the schedule `drills` drills every model's rollback, in UTC; empty: it is off.
        notify_url: Who receives messages of rollbacks and aborts: addresses separated by commas; empty: nobody.
        notify_secret: What signs messages to any receiver but Slack; at least 32 characters.
        dagster_url: Where Dagster's web server answers, for links.
        mlflow_url: Where MLflow's web server answers, for links.
        actor: Who acts; empty: the user of the operating system.
        require_keys: Whether operators must show who they are: then no name that is merely said moves anything.
        stamp_secret: With `require_keys`: what Dagster's web server and the code location share, to tell a run that an
            operator launched from a forged one; at least 32 characters.
        proxy_secret: With `require_keys`: what the proxy shows to Dagster's web server, to be believed when it names
            who signed in; empty: it is not believed.
        api_url: Where the operators' API answers; when it is set the operator's commands go there.
        api_key: The API key that these commands show.
        api_key_file: A file with that key, where it is not in the environment.
    """

    model_config = SettingsConfigDict(env_prefix="RELEASE_", extra="ignore")

    profile: Profile = Profile.EMBEDDED
    home: Path = Path(".release")
    models: Path = Path("models")
    mlflow_tracking_uri: str = Field(
        default="", validation_alias=AliasChoices("RELEASE_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")
    )
    store_url: str = ""
    snapshots: str = ""
    keys: Path | None = None
    signing_key: SecretStr = SecretStr("")
    api_keys: Path | None = None
    serving_url: str = "http://127.0.0.1:8000"
    serving_api_key: SecretStr = SecretStr("")
    serving_admin_key: SecretStr = SecretStr("")
    drill_cron: str = ""
    notify_url: SecretStr = SecretStr("")
    notify_secret: SecretStr = SecretStr("")
    dagster_url: str = "http://127.0.0.1:3000"
    mlflow_url: str = "http://127.0.0.1:5050"
    actor: str = ""
    require_keys: bool = False
    stamp_secret: SecretStr = SecretStr("")
    proxy_secret: SecretStr = SecretStr("")
    api_url: str = ""
    api_key: SecretStr = SecretStr("")
    api_key_file: Path | None = None

    @field_validator("keys", "api_keys", "api_key_file", mode="before")
    @classmethod
    def _is_named(cls, value: object) -> object:
        return value or None  # else an empty text is the current folder

    @field_validator("profile", mode="before")
    @classmethod
    def _is_known(cls, value: object) -> object:
        if value not in list(Profile):
            raise Refused(f"RELEASE_PROFILE is '{value}'", remedy=f"choose one of {', '.join(Profile)}")
        return value

    @property
    def serving_urls(self) -> tuple[str, ...]:
        """The addresses of all servers, each once."""
        return tuple(dict.fromkeys(url.strip().rstrip("/") for url in self.serving_url.split(",") if url.strip()))

    def serving_url_with(self, own: str) -> str:
        """Returns a server that is started here, and those that were named, as `serving_url` has them."""
        named = self.serving_urls if "serving_url" in self.model_fields_set else ()
        return ",".join(dict.fromkeys((own, *named)))

    @property
    def admin_key(self) -> str:
        """The API key by which live traffic is fetched from the servers; empty for none. It is not to be printed."""
        return self.serving_admin_key.get_secret_value() or self.serving_api_key.get_secret_value()

    @cached_property
    def root(self) -> Path:
        """The profile's folder in `home`, absolute."""
        return root_of(self.profile, self.home)

    @cached_property
    def _places(self) -> Places:
        return places_of(self.profile, self.root)

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking and registry URI."""
        return self.mlflow_tracking_uri or _named(self._places.tracking_uri, "RELEASE_MLFLOW_TRACKING_URI")

    @property
    def artifact_root(self) -> str | None:
        """Where an embedded MLflow keeps artefacts; None when a server decides."""
        return None if self.mlflow_tracking_uri else self._places.artifact_root

    @property
    def release_store_url(self) -> str:
        """The SQLAlchemy URL of the release store."""
        return self.store_url or _named(self._places.store_url, "RELEASE_STORE_URL")

    @property
    def snapshot_root(self) -> str:
        """Where data snapshots are kept."""
        return self.snapshots or _named(self._places.snapshots, "RELEASE_SNAPSHOTS")

    @property
    def recording_root(self) -> str:
        """Where recorded requests are kept."""
        return self._beside_snapshots("recordings")

    @property
    def label_root(self) -> str:
        """Where the labels of recorded requests are kept."""
        return self._beside_snapshots("labels")

    @property
    def call_root(self) -> str:
        """Where is kept how many calls came, and were refused."""
        return self._beside_snapshots("calls")

    def _beside_snapshots(self, name: str) -> str:
        """Returns a place beside the snapshots where these are in a bucket, else in `home`."""
        snapshots = self.snapshot_root
        return f"{snapshots.rstrip('/')}/{name}" if snapshots.startswith("s3://") else str(self.root / name)

    @property
    def key_folder(self) -> Path:
        """Where the keys are."""
        return self.keys or self.root / "keys"

    @property
    def known_keys(self) -> Path:
        """Where the API keys are that callers may show."""
        return self.api_keys or self.key_folder / "api-keys.json"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder: `DAGSTER_HOME` if it is set, else in `home`."""
        given = os.environ.get("DAGSTER_HOME")
        return Path(given) if given else self.root / "dagster"

    @property
    def acting(self) -> str:
        """Who acts when nobody is named; where keys are required that is the user of this process, whatever is said."""
        if not self.require_keys:
            return self.actor or getpass.getuser()
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container may run as a user without a name
            return f"user {os.getuid()}"

    @property
    def described(self) -> str:
        """The profile in a sentence, for people."""
        return described(self.profile, self.root)

    def check(self) -> None:
        """Requires what the profile has no default for; whoever releases calls it at its start.

        Raises:
            Refused: Variables are not set; names them.
            Unavailable: The servers of the profile `local` do not run.
        """
        needed = {
            "RELEASE_STORE_URL": bool(self.store_url),
            "RELEASE_MLFLOW_TRACKING_URI": bool(self.mlflow_tracking_uri),
            "RELEASE_SNAPSHOTS": bool(self.snapshots),
            "RELEASE_KEYS": self.keys is not None,
            "RELEASE_SERVING_URL": "serving_url" in self.model_fields_set,
            "DAGSTER_HOME": bool(os.environ.get("DAGSTER_HOME")),
        }
        if self.require_keys:
            needed["RELEASE_STAMP_SECRET"] = bool(self.stamp_secret.get_secret_value())
        require(self.profile, needed)
        _ = self._places

    def prepare(self) -> None:
        """Makes the folders, and gives Dagster its home with the platform's `dagster.yaml`. Raises as `check`."""
        self.check()
        self.root.mkdir(parents=True, exist_ok=True)
        os.environ.update(self._places.environment)
        if "DAGSTER_HOME" not in os.environ:
            self.dagster_home.mkdir(exist_ok=True)
            config = self.dagster_home / "dagster.yaml"
            wanted = shipped("dagster.yaml").read_text() + dagster_storage(self.profile)
            if not config.exists() or config.read_text() != wanted:
                config.write_text(wanted)
            os.environ["DAGSTER_HOME"] = str(self.dagster_home)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def _named(place: str, variable: str) -> str:
    if not place:
        raise unset(variable)
    return place
