"""``omni export``: a flow or a fitted predictor for use without this library."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Write a model in a format that others read."""
    parser = command_parser(
        "export",
        "torch and safetensors are a state dict that loads into the untouched class of the\n"
        "backbone. onnx is a network for batches of any size, compared with PyTorch before it is\n"
        "written: of one flow with --flow, and without it of all that 'omni adapt' has written,\n"
        "from images to the probabilities of its classes.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="run folder, saved learner, or shipped model ('glyphs')"
    )
    parser.add_argument("--flow", help="pre, joint or meta")
    parser.add_argument(
        "--format", choices=("torch", "safetensors", "onnx"), required=True, help="of the file"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.learner import FewShotClassifier, Trained, export, load
    from omnitraining.learner.sources import find

    def chosen(trained: Trained) -> str:
        """The flow that is meant."""
        flows = trained.model.trained_flows
        if options.flow is None and len(flows) > 1:
            raise InputError(f"{options.model} has several flows: add --flow {' or '.join(flows)}")
        return options.flow or flows[0]

    what = "features"
    if options.format != "onnx":
        trained = find(options.model, options.trust)
        flow = chosen(trained)
        module = export.plain_flow(trained, flow)
        if options.format == "torch":
            export.save_torch(module, options.out)
        else:
            facts = {**export.facts_of(trained), "flow": flow}
            export.save_safetensors(module, options.out, facts)
        count = sum(parameter.numel() for parameter in module.parameters())
        say(f"{flow}-flow as {type(module).__name__}, {count:,} parameters: {options.out}")
        return 0
    learner = None if options.flow else load(options.model, options.trust)
    if isinstance(learner, FewShotClassifier) and hasattr(learner, "predictor_"):
        what = f"probabilities of {len(learner.classes_)} classes"
        largest = export.save_predictor(learner, options.out)
    else:
        trained = find(options.model, options.trust)
        largest = export.save_flow(trained, chosen(trained), options.out)
    say(f"images to {what}: {options.out}")
    say(f"onnxruntime and PyTorch differ by {largest:.1e} at most")
    return 0
