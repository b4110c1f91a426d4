"""Network alone on this machine's CPU: the prepared network, eager torch, torch.compile, ONNX Runtime and OpenVINO.

    pip install '.[bench]'; python -m benchmarks.network [--width 1 --size 480 360] [--rounds 5] [--threads 2]

All run the same front end with the same weights on the same window, one after the other in each round. All keep freed
memory (`model.kernels.host_memory`), as a job does. Errors are relative to float64. The benchmark writes
benchmarks/results/network_480x360.json.
"""

from __future__ import annotations

import argparse
import copy
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.probe import alternate, product_rate, write_results
from model.kernels.host_memory import keep_freed_memory
from model.kernels.preparation import prepare
from model.networks.dilated.geometry import MARGIN, OUTPUT_STRIDE, score_map_size
from model.networks.dilated.networks import front_end_only
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec

CLASSES = 11
Way = Callable[[Tensor], Tensor]


def main() -> None:
    """Run the benchmark, print its figures, and write network_WIDTHxHEIGHT.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, nargs="*", default=[1.0, 0.25, 0.0625], help="of VGG-16's")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 360), help="of the image, pixels across and down")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, default=2.5, help="GiB of transformed weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    ceiling = product_rate()
    print(f"matrix product: {ceiling / 1e9:.0f} GFLOP/s on {options.threads} threads")
    rows = {f"{width:g}": measure(width, options, ceiling) for width in options.width}
    name = "network_{}x{}".format(*options.size)
    write_results(name, {"size": options.size, "product_flops": ceiling, "widths": rows})


@torch.inference_mode()
def measure(width: float, options: argparse.Namespace, ceiling: float) -> dict[str, Any]:
    """Measure one width: seconds, speed relative to eager torch, and error of every way."""
    network = _network(width)
    window = _window(*options.size)
    started = time.perf_counter()
    prepared = prepare(network, int(options.memory * 2**30))
    seconds = time.perf_counter() - started
    with FlopCounterMode(display=False) as counter:
        expected = network.double()(window.double())
    network.float()
    flops = counter.get_total_flops()
    ways: dict[str, Way] = {"torch eager": network, "prepared": prepared, **dict(_runtimes(network, window))}
    timings = alternate({name: _bound(way, window) for name, way in ways.items()}, options.rounds)
    print(f"\nwidth {width:g}: {flops / 1e9:.0f} GFLOP, {tuple(window.shape[2:])} pixels, prepared in {seconds:.1f} s")
    rows = {}
    for name, way in ways.items():
        scores = way(window)
        timing = timings[name]
        rows[name] = {
            **timing,
            "times_eager": timings["torch eager"]["median"] / timing["median"],
            "share_of_product_rate": flops / timing["median"] / ceiling,
            "error": float((scores - expected).abs().max() / expected.abs().max()),
            "labels_as_float64": float((scores.argmax(1) == expected.argmax(1)).double().mean()),
        }
        print(_line(name, rows[name]), flush=True)
    return {"flops": flops, "prepare_seconds": seconds, "ways": rows}


def _line(name: str, row: dict[str, float]) -> str:
    """Return a printable line of one way's figures."""
    spread = f"{row['median'] * 1e3:8.0f} ms ({row['least'] * 1e3:.0f} to {row['greatest'] * 1e3:.0f})"
    ratios = f"{row['times_eager']:6.2f} x eager  {row['share_of_product_rate']:6.2f} of the product's rate"
    return f"{name:<24}{spread:<28}{ratios}  error {row['error']:.0e}  labels {row['labels_as_float64']:.5f}"


def _network(width: float) -> Network:
    """Return a front end of a share of VGG-16's width with random weights."""
    torch.manual_seed(0)
    palette = tuple((20 * n, 255 - 20 * n, 7) for n in range(CLASSES))
    spec = NetworkSpec(tuple(f"class {n}" for n in range(CLASSES)), palette, (110.0, 110.0, 110.0))
    network = front_end_only(spec, FrontEndWidths.vgg16(width)).eval()
    # Make the scores about as far apart as a trained network's.
    network.front_end.get_parameter("final.weight").mul_(30)
    return network


def _window(width: int, height: int) -> Tensor:
    """Return an image of smooth patches with its margin, (1, 3, H, W), in the form that the front end receives."""
    cells = score_map_size(height, width)
    size = [count * OUTPUT_STRIDE + 2 * MARGIN for count in cells]
    coarse = torch.randint(0, 256, (1, 3, *(length // 16 for length in size))).float()
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear") - 110


def _runtimes(network: Network, window: Tensor) -> Iterator[tuple[str, Way]]:
    """Yield name and function of each other way; ONNX Runtime and OpenVINO only if they are installed."""
    yield "torch, channels last", copy.deepcopy(network).to(memory_format=torch.channels_last)
    yield "torch.compile", torch.compile(network)
    try:
        import onnxruntime
        import openvino
    except ImportError as error:
        print(f"without ONNX Runtime and OpenVINO ({error}): pip install '.[bench]'")
        return
    sink: Any = io.BytesIO()
    torch.onnx.export(network, (window,), sink, dynamo=False, opset_version=17, input_names=["images"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(sink.getvalue(), options, providers=["CPUExecutionProvider"])
    yield "ONNX Runtime", lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    model = openvino.Core().read_model(io.BytesIO(sink.getvalue()))
    for precision in ("f32", "bf16"):
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        yield f"OpenVINO, {precision}", _openvino(compiled)


def _openvino(compiled: Any) -> Way:
    request = compiled.create_infer_request()
    return lambda images: torch.from_numpy(request.infer({0: images.numpy()})[0].copy())


def _bound(way: Way, window: Tensor) -> Callable[[], Tensor]:
    return lambda: way(window)


if __name__ == "__main__":
    main()
