"""`bark-beam weights convert`: old checkpoint formats to a folder of safetensors."""

from argparse import Namespace

from pipeline.errors import UsageError


def weights(options: Namespace, flags: list[str]) -> int:
    """Converts a checkpoint."""
    from bark_model.convert import convert

    try:
        checkpoint = convert(
            options.source,
            options.target,
            revision=options.revision,
            dtype=options.dtype,
            codec=options.codec,
            tokenizer=options.tokenizer,
        )
    except ImportError as error:
        raise UsageError(f"this conversion needs {error.name}: pip install 'bark-beam[convert]'") from error
    print(f"{options.target}: sha256 {checkpoint.sha256}")
    return 0
