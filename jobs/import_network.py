r"""Import a network of your own: export it, measure it, and write one file that segment_bucket.py predicts with.

    ray job submit --working-dir . -- python jobs/import_network.py s3://bucket/segformer --output s3://bucket/x.pt2

SOURCE is a .pt2 archive of torch.export.save; a folder of transformers or segmentation_models_pytorch (config.json,
model.safetensors); or torchvision:NAME with --weights. Works without Ray too: `python jobs/import_network.py SOURCE …`.
Pickles are never loaded. Exit codes: 0 imported; 2 wrong usage, or the source cannot be imported; 3 the storage failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.command_line import WriterOptions, job, parse
from pipeline.importing.request import ImportRequest
from pipeline.options import option


class ImportOptions(WriterOptions, ImportRequest):
    """Options of `jobs/import_network.py`."""

    output: Annotated[str, option("URI")]
    """URI of the file to write, such as s3://bucket/network.pt2; an existing one is replaced."""


@job
def main(arguments: list[str]) -> None:
    """Import the network, and print what was found."""
    options = parse(ImportOptions, arguments, __doc__)
    from pipeline.data.filesystems import normalise
    from pipeline.data.storage import Storage
    from pipeline.importing.importer import import_network

    storage = Storage()
    target = normalise(options.output)
    imported = import_network(options, storage)
    print(imported.text())
    if options.dry_run:
        print(f"would write {target} ({len(imported.data) / 2**20:.1f} MiB)")
        return
    storage.write(target, imported.data)
    print(f"wrote {target} ({len(imported.data) / 2**20:.1f} MiB)")


if __name__ == "__main__":
    sys.exit(main())
