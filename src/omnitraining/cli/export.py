"""``omni export``: write a flow or a fitted predictor for use without this library."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Write a model in a standard format."""
    parser = command_parser(
        "export",
        "torch and safetensors: a state dict for the original class of the backbone.\n"
        "onnx: a network for batches of any size, compared with PyTorch before it is written;\n"
        "with --flow from images to the features of that flow, without it from images to the\n"
        "probabilities of the classes that 'omni adapt' has learned.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="run folder, saved learner, or shipped model (glyphs, photos)",
    )
    parser.add_argument("--flow", help="pre, joint or meta")
    parser.add_argument(
        "--format", choices=("torch", "safetensors", "onnx"), required=True, help="of the file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.learner import FewShotClassifier, TrainedModel, export, load
    from omnitraining.learner.sources import find
    from omnitraining.libraries import PooledBackbone

    def flow_of(trained: TrainedModel) -> str:
        """The flow to export."""
        flows = trained.model.trained_flows
        if options.flow is None and len(flows) > 1:
            raise InputError(f"{options.model} has several flows: add --flow {' or '.join(flows)}")
        return options.flow or flows[0]

    if options.format != "onnx":
        trained = find(options.model, options.trust)
        flow = flow_of(trained)
        module = export.plain_flow(trained, flow)
        if isinstance(module, PooledBackbone):
            module = module.model  # with the weight names of its library
        if options.format == "torch":
            export.save_torch(module, options.out)
        else:
            metadata = {**export.metadata_of(trained), "flow": flow}
            export.save_safetensors(module, options.out, metadata)
        count = sum(parameter.numel() for parameter in module.parameters())
        say(f"{flow}-flow as {type(module).__name__}, {count:,} parameters: {options.out}")
        return 0
    learner = None if options.flow else load(options.model, options.trust)
    if isinstance(learner, FewShotClassifier) and hasattr(learner, "predictor_"):
        outputs = f"probabilities of {len(learner.classes_)} classes"
        largest = export.save_predictor(learner, options.out)
    else:
        outputs, trained = "features", find(options.model, options.trust)
        largest = export.save_flow(trained, flow_of(trained), options.out)
    say(f"images to {outputs}: {options.out}")
    say(f"onnxruntime and PyTorch differ by {largest:.1e} at most")
    return 0
