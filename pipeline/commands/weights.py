"""`bark-beam weights convert`: old checkpoint formats to a folder of safetensors."""

from argparse import Namespace

from pipeline.errors import UsageError


def weights(options: Namespace, flags: list[str]) -> int:
    """Converts a checkpoint."""
    try:
        from bark_model.convert import convert
    except ImportError as error:
        raise UsageError(f"converting needs {error.name}: pip install 'bark-beam[convert]'") from error
    checkpoint = convert(options.source, options.target)
    print(f"{options.target}: sha256 {checkpoint.sha256}")
    return 0
