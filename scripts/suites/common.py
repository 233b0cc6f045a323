"""A run of a suite: peers in processes of their own, told what to do one at a time."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from peers import CEILINGS

from jaxnet import data, mlp, text
from jaxnet.cli.common import FAILED, StopError

LECTURE = (784, 256, 128, 10)
SCRIPTS = Path(__file__).resolve().parents[1]


class Found(NamedTuple):
    """What came of a suite.

    Attributes:
      numbers: for the record.
      table: for the terminal.
      pictures: names of the pictures of the numbers, see `suites.pictures`.
    """

    numbers: dict[str, Any]
    table: str
    pictures: tuple[str, ...] = ()


class PeerError(StopError):
    """A peer has ended instead of answering; the message has the last line that it printed."""


@dataclasses.dataclass
class Run:
    """A run of a suite.

    Attributes:
      peers: names of those that take part.
      quick: whether to do only a tenth of the work.
      dataset: MNIST as uint8, or None.
      folder: of the files that processes share.
      bar: shows progress.
      failed: for each peer that has ended, why; it takes no further part.
    """

    peers: Sequence[str]
    quick: bool
    dataset: data.Dataset | None
    folder: Path
    bar: tqdm.tqdm
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    @contextmanager
    def excused(self, name: str) -> Iterator[None]:
        """Lets the run go on without a peer that ends."""
        try:
            yield
        except PeerError as error:
            self.failed[name] = str(error)
            self.bar.write(f"{name} is left out from here on: {error}")

    def rounds(self, usual: int) -> int:
        """Returns how often to measure."""
        return 2 if self.quick else usual

    def write_images(self, count: int = 60_000) -> str:
        """Writes images for the processes to read, and returns what they are in words."""
        count = count // 10 if self.quick else count
        if self.dataset is None:
            rng = np.random.default_rng(0)
            images = rng.integers(0, 256, (count, 784), np.uint8)
            images *= rng.random(images.shape, np.float32) < 0.19  # as dark as MNIST
            labels = rng.integers(0, 10, count)
        else:
            splits = (self.dataset.train, self.dataset.validation or self.dataset.test)
            images = np.concatenate([split.inputs for split in splits])[:count]
            labels = np.concatenate([split.labels for split in splits])[:count]
        self.write(images, labels)
        return f"{len(images):,} {'random' if self.dataset is None else 'MNIST'} images"

    def write(self, images: np.ndarray, labels: np.ndarray, prefix: str = "") -> None:
        """Writes images and labels for the processes to read."""
        np.save(self.folder / f"{prefix}images.npy", images)
        np.save(self.folder / f"{prefix}labels.npy", labels)

    def work(
        self,
        sizes: Sequence[int],
        batch_size: int,
        *,
        bias: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> dict[str, Any]:
        """Writes initial parameters, and returns the description of the work for the processes.

        Args:
          sizes: of the network.
          batch_size: of the work.
          bias: whether layers have biases.
          seed: of the parameters, and of the order of the images.
          **options: of `peers.Work`; by default gradient descent with a rate of 0.1.
        """
        descent = {"optimizer": "sgd", "learning_rate": 0.1}
        params = self._write_params(sizes, bias, seed)
        return {"params": params, "batch_size": batch_size, "seed": seed, **descent, **options}

    def _write_params(self, sizes: Sequence[int], bias: bool, seed: int) -> str:
        params = mlp.init(jax.random.key(seed), sizes, bias=bias, dtype=np.float32)
        arrays = {}
        for i, layer in enumerate(params):
            arrays[f"weight{i}"] = np.asarray(layer.weight)
            if layer.bias is not None:
                arrays[f"bias{i}"] = np.asarray(layer.bias)
        name = "-".join(map(str, sizes)) + (f"-{seed}" if bias else f"-{seed}-without-bias")
        np.savez(self.folder / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        return name


class Peer:
    """A peer in a process of its own."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self._log = (folder / f"{name}.log").open("w+")  # what libraries print
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker", name, str(folder)],
            cwd=SCRIPTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, order: str, value: Any = 1) -> dict[str, Any]:
        """Returns the answer to an order.

        Raises:
          PeerError: a process that has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({order: value}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._process.wait()
            self._log.seek(0)
            said = [line for line in self._log.read().splitlines() if line.strip()]
            last = said[-1] if said else "without a word"
            raise PeerError(f"it ended with status {status}: {last}", FAILED)
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # it may have ended
            self._process.communicate()
        self._log.close()


@contextmanager
def processes(run: Run, names: Iterable[str]) -> Iterator[list[Peer]]:
    """Starts a process for each peer, and ends them."""
    with ExitStack() as stack:
        found = [Peer(name, run.folder) for name in names]
        for peer in found:
            stack.callback(peer.close)
        yield found


def prepare(run: Run, peers: Sequence[Peer], work: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tells each peer to compile the work, and returns the answers of those that could."""
    answers = {}
    for peer in peers:
        if peer.name not in run.failed:
            with run.excused(peer.name):
                answers[peer.name] = peer.ask("make", work)
    return answers


def interleave(
    run: Run, peers: Sequence[Peer], rounds: int, *, epochs: int = 1
) -> dict[str, dict[str, Any]]:
    """Measures epochs of all peers in rounds, so that what slows the machine slows all of them.

    In a round, each peer runs one epoch that does not count, because its data has left the caches
    while the others ran, and then ``epochs`` that count. A first round, which compiles, does not
    count at all. All peers run the same number of epochs, however long they take.

    Args:
      run: of the suite; a peer that ends is left out from then on.
      peers: that have been told their work, and ceilings.
      rounds: that count.
      epochs: of each peer in a round.

    Returns:
      For each peer that has not ended its ``seconds`` and ``values`` (losses before the updates;
      of ceilings, rates), one for each epoch that counts, and its ``peak_mb``.
    """
    answers: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    for number in range(rounds + 1):
        for peer in peers:
            if peer.name in run.failed:
                continue
            run.bar.set_postfix_str(f"{peer.name}, {number} of {rounds}")
            order = "rate" if peer.name in CEILINGS else "run"
            with run.excused(peer.name):
                peer.ask(order)
                if number:
                    answers[peer.name] += [peer.ask(order) for _ in range(epochs)]
            run.bar.update()
    return {
        name: {
            "seconds": [each["seconds"] for each in of_peer],
            "values": [each["value"] for each in of_peer],
            "peak_mb": of_peer[-1]["peak_mb"],
        }
        for name, of_peer in answers.items()
        if name not in run.failed
    }


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    return float(np.median(values))


def spread(values: Sequence[float]) -> str:
    """Returns the median, and the least and the largest."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows of the same columns as text."""
    return text.table(list(rows[0]), [list(row.values()) for row in rows], align="right")
