"""The runners a job may name. Free of Beam, so that a mistyped runner is refused before anything is imported."""

from pipeline.errors import UsageError, excerpt, nearest

LOCAL = ("local", "FnApiRunner", "BundleBasedDirectRunner")
_BEAM_NAMES = {
    "local": "FnApiRunner",
    "prism": "PrismRunner",
    "portable": "PortableRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
_REFUSED = {
    "dask": "it loses data silently: use local with --direct_num_workers",
    "DaskRunner": "it loses data silently: use local with --direct_num_workers",
    "direct": "it downloads another engine and switches with the graph: use local",
    "DirectRunner": "it downloads another engine and switches with the graph: use local",
}


def beam_runner(name: str) -> str:
    """The Beam class name of a job's `runner`; UsageError for those that are refused or unknown."""
    if name in _REFUSED:
        raise UsageError(f"runner {name!r} is refused, {_REFUSED[name]}")
    known = [*_BEAM_NAMES, *_BEAM_NAMES.values(), "BundleBasedDirectRunner"]
    if name not in known:
        hint = nearest(name, known) or f", must be one of {', '.join(known)}"
        raise UsageError(f"unknown runner {excerpt(name)}{hint}")
    return _BEAM_NAMES.get(name, name)
