"""Explain a folder of ImageNet photographs through the command line, and say how exact the maps are.

    python reproductions/imagenet_sample/run.py ../shared/data/imagenet_sample lite0
    python reproductions/imagenet_sample/run.py ../shared/data/imagenet_sample squeezenet \
        ../shared/data/squeezenet1_0_imagenet/squeezenet1_0.safetensors

File names start with the class's WordNet number; `classes.tsv` in the folder lists all of them.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

METHODS = ("integrated-gradients", "cam", "grad-cam")
NETWORKS = {
    "lite0": ["-m", "efficientnet-lite0"],
    "squeezenet": ["-m", "tests.zoo.squeezenet:squeezenet1_0", "--size", "227", "--crop", "227"],
}


def main(folder: Path, network: str, weights: list[str]) -> int:
    lines = (folder / "classes.tsv").read_text().splitlines()
    wnids = [line.split("\t")[1] for line in lines]
    command = [
        sys.executable,
        "-c",
        "from whyglass.cli.main import main; main()",
        "explain",
        str(folder),
        *NETWORKS[network],
        "--classes",
        str(folder / "classes.tsv"),
        "--json",
        "-q",
    ]
    command += [part for name in METHODS for part in ("-M", name)]
    command += ["--weights", weights[0]] if weights else []
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    photos = json.loads(done.stdout)["photos"]
    errors = [photo["photo"] for photo in photos if "error" in photo]
    print(
        f"{network}: {len(photos)} photographs, {len(errors)} failures, exit code {done.returncode}, "
        f"{seconds:.0f} s"
    )
    for photo in errors:
        print("  failed:", photo)
    ranks = []
    for photo in photos:
        wnid = Path(photo["photo"]).name.split("_")[0]
        found = [p["index"] for p in photo["prediction"]]
        ranks.append(found.index(wnids.index(wnid)) if wnids.index(wnid) in found else 99)
    print(
        f"top-1 {statistics.mean(r == 0 for r in ranks):.3f}, "
        f"top-5 {statistics.mean(r < 5 for r in ranks):.3f}"
    )
    for method in METHODS:
        entries = [e for p in photos for e in p["explanations"] if e["method"] == method]
        verdicts = [e["verdict"] for e in entries]
        print(
            f"{method}: " + ", ".join(f"{v} {verdicts.count(v)}" for v in ("pass", "warn", "fail"))
        )
        for check in entries[0]["checks"]:
            figures = sorted(
                c["measured"] for e in entries for c in e["checks"] if c["name"] == check["name"]
            )
            print(
                f"  {check['name']}: median {statistics.median(figures):.2g}, "
                f"95% {figures[int(0.95 * len(figures))]:.2g}, worst {figures[-1]:.2g}"
            )
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
