"""The hand-written gradient beside jax.grad, in the same training program."""

from suites.common import LECTURE, Found, Run, interleave, median, prepare, processes, table

_PEERS = ("jaxnet", "jaxnet-auto")
_WORKS = (
    (LECTURE, 60_000),
    (LECTURE, 128),
    ((784, 30, 10), 10),
    ((784, 1000, 500, 10), 128),
    ((784, *[128] * 8, 10), 128),
)


def measure(run: Run) -> Found:
    """Measures an epoch with each gradient, and counts operations in the compiled programs."""
    images = run.write_images()
    works, rows = [], []
    with processes(run, _PEERS) as started:
        for sizes, batch_size in _WORKS[:3] if run.quick else _WORKS:
            batch_size = min(batch_size, 6_000) if run.quick else batch_size
            work = run.work(sizes, batch_size)
            made = prepare(run, started, work)
            compiled = {name: answer["compiled"] for name, answer in made.items()}
            found = interleave(run, started, run.rounds(7))
            if run.failed:
                break
            title = f"{'-'.join(map(str, sizes))}, batch {batch_size:,}"
            works.append({"title": title, "peers": found, "compiled": compiled})
            seconds = [median(found[name]["seconds"]) for name in _PEERS]
            by_hand, automatic = (compiled[name] for name in _PEERS)
            rows.append(
                {
                    "work": title,
                    "by hand, s": f"{seconds[0]:.3g}",
                    "jax.grad, s": f"{seconds[1]:.3g}",
                    "ratio": f"{seconds[1] / seconds[0]:.2f}",
                    **{
                        name: f"{by_hand[name]:.0f} / {automatic[name]:.0f}"
                        for name in ("temporary_mb", "products", "fusions", "copies")
                    },
                }
            )
    return Found({"images": images, "works": works}, table(rows) if rows else "")
