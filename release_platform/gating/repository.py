"""A Git repository as a comparison of two commits needs it: its commits, its files, and what of them is ignored."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from release_platform.domain.errors import NotFound, Refused
from release_platform.pipeline.environment import git_root

_WORDS = {"A": "new", "D": "gone"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A checkout; `root` is its top folder, without symbolic links."""

    root: Path

    @classmethod
    def of(cls, folder: Path) -> "Repository":
        """Returns the repository that a folder is in.

        Raises:
            Refused: It is in none.
        """
        root = git_root(folder)
        if root is None:
            raise Refused(f"{folder} is in no Git repository", remedy="run it in a checkout, or leave --from out")
        return cls(root=root.resolve())

    def commit(self, ref: str) -> str:
        """Returns the id of the commit that Git calls by this name.

        Raises:
            NotFound: There is none.
        """
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if done.returncode != 0:
            raise NotFound(
                f"there is no commit '{ref}' in {self.root}",
                remedy="name a commit, branch or tag; in CI, fetch the whole history (fetch-depth: 0)",
            )
        return done.stdout.strip()

    @contextmanager
    def checked_out(self, commit: str, folder: Path) -> Iterator[Path]:
        """Checks a commit out into a new folder, which is gone afterwards.

        Raises:
            Refused: Git cannot do it.
        """
        done = self._git("worktree", "add", "--detach", "--quiet", str(folder), commit)
        if done.returncode != 0:
            raise Refused(f"Git cannot check {commit[:12]} out: {done.stderr.strip()}", remedy="repair the repository")
        try:
            yield folder.resolve()
        finally:
            self._git("worktree", "remove", "--force", str(folder))

    def files(self) -> tuple[str, ...]:
        """Returns the files of the working tree that are not ignored, relative to the root."""
        return self._names("ls-files", "--cached", "--others", "--exclude-standard")

    def ignored(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Returns those of some paths within the root that Git ignores."""
        return tuple(path for path in paths if self._git("check-ignore", "--quiet", str(path)).returncode == 0)

    def changed(self, commit: str, names: Iterable[str]) -> tuple[str, ...]:
        """Returns a sentence for each file that differs between a commit and the working tree.

        Args:
            commit: The commit.
            names: The files and folders to look at, relative to the root.
        """
        looked_at = ("--", *sorted(set(names)))
        found = iter(self._names("diff", "--name-status", "--no-renames", commit, *looked_at))
        said = {name: _WORDS.get(status, "changed") for status, name in zip(found, found, strict=True)}
        said |= dict.fromkeys(self._names("ls-files", "--others", "--exclude-standard", *looked_at), "new")
        return tuple(f"{name} is {word}" for name, word in sorted(said.items()))

    def _names(self, command: str, *arguments: str) -> tuple[str, ...]:
        return tuple(name for name in self._git(command, "-z", *arguments).stdout.split("\0") if name)

    def _git(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        literal = () if arguments[0] == "check-ignore" else ("--literal-pathspecs",)  # it takes names as they are
        command = ["git", *literal, *arguments]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
