r"""Import a network of your own: export it, measure it, and write one file that segment_bucket.py predicts with.

    ray job submit --working-dir . -- python jobs/import_network.py s3://bucket/segformer --output s3://bucket/x.pt2

SOURCE is a .pt2 archive of torch.export.save; a folder of transformers or segmentation_models_pytorch (config.json,
model.safetensors); or torchvision:NAME with --weights. Works without Ray too: `python jobs/import_network.py SOURCE …`.
Pickles are never loaded. Exit codes: 0 imported; 2 wrong usage, or the source cannot be imported; 3 the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse
from pipeline.options import option

Numbers = tuple[float, float, float]


class ImportOptions(WriterOptions):
    """Options of `jobs/import_network.py`."""

    source: Positional[str]
    """URI of a .pt2 archive or of a folder, or torchvision:NAME."""
    output: Annotated[str, option("URI")]
    """URI of the file to write, such as s3://bucket/network.pt2; an existing one is replaced."""
    weights: Annotated[str | None, option("URI", "none")] = None
    """With torchvision:NAME: safetensors file, or state dict without code."""
    classes: Annotated[str | None, option("URI | NAMES", "those that the files state")] = None
    """Classes file, or names separated by commas, in the order of the network's outputs."""
    palette: Annotated[str | None, option("COLORS", "that of the classes file, or colors far apart")] = None
    """Color of each class, such as #804080,#464646, in the order of the classes."""
    mean: Annotated[Numbers | None, option("A B C", "that which the files state")] = None
    """Mean of each channel after scaling, in the order of the channels."""
    std: Annotated[Numbers | None, option("A B C", "that which the files state")] = None
    """Standard deviation of each channel after scaling."""
    scale: Annotated[float | None, option("FLOAT", "that which the files state, or 1/255")] = None
    """Factor of the pixel values, which are 0 to 255."""
    channels: Annotated[Literal["RGB", "BGR"] | None, option("{RGB,BGR}", "that which the files state, or RGB")] = None
    """Order of the input's channels."""
    ignore_label: Annotated[int | None, option("INT", "that which the files state, or 255")] = None
    """Label value that counts nowhere."""
    output_key: Annotated[str | None, option("NAME", "the only output")] = None
    """Of a .pt2 archive with several outputs: name or number of the map of scores."""
    values: Literal["scores", "probabilities"] = "scores"
    """Values of the output: scores before softmax, or probabilities."""
    fixed: Annotated[tuple[int, int] | None, option("HEIGHT WIDTH", "any size")] = None
    """Export the network for this size alone, in pixels."""
    dynamic: bool = False
    """Refuse a network that cannot be exported for every size, instead of exporting it for one."""
    overlap: int = 128
    """Pixels by which windows overlap if a label depends on the whole image."""
    license: Annotated[str | None, option("TEXT", "not stated")] = None
    """License of the weights, for the record."""


@job
def main(arguments: list[str]) -> None:
    """Import the network, and print what was found."""
    options = parse(ImportOptions, arguments, __doc__)
    from pipeline.data.filesystems import normalise
    from pipeline.data.storage import Storage
    from pipeline.importing.importer import ImportRequest, import_network

    storage = Storage()
    target = normalise(options.output)
    request = ImportRequest.model_validate({**options.model_dump(exclude={"dry_run"}), "output": target})
    imported = import_network(request, storage)
    print(imported.text())
    if options.dry_run:
        print(f"would write {target} ({len(imported.data) / 2**20:.1f} MiB)")
        return
    storage.write(target, imported.data)
    print(f"wrote {target} ({len(imported.data) / 2**20:.1f} MiB)")


if __name__ == "__main__":
    sys.exit(main())
