"""``omni demo``: few-shot classification in the browser."""

import signal
from contextlib import suppress
from types import FrameType

from omnitraining.cli import add_backbone, add_trust, backbone_options, command_parser
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Serve the page on this machine until interrupted."""
    parser = command_parser(
        "demo",
        "The page is served on this machine only; nothing leaves it. Ctrl-C ends the program.",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        default="photos",
        help="run folder, saved learner, shipped model, or pretrained backbone, as timm/resnet50 "
        "(default: 'photos'; 'glyphs' for characters and drawings)",
    )
    parser.add_argument("--port", type=int, help="of the page (default: a free one from 7860 on)")
    add_backbone(parser)
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining.demo.server import serve
    from omnitraining.learner.sources import find

    signal.signal(signal.SIGTERM, _stop)  # so that temporary files are deleted
    with suppress(KeyboardInterrupt):
        serve(
            find(options.run, options.trust, backbone_options(options)),
            options.port,
            lambda url: say(f"demo: {url}"),
        )
    return 0


def _stop(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)
