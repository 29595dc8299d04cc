"""MLflow: a training's parameters, figures and model file as a run. The library is imported only when asked for."""

from pathlib import Path
from typing import Any

from peerwatch.errors import UsageError


def check_tracking() -> None:
    """Check that MLflow is installed, before anything is trained.

    Raises:
        UsageError: it is not.
    """
    _library()


def track(experiment: str, model: dict[str, Any], found: dict[str, float | int | None], files: list[Path]) -> str:
    """Log a training to the server or directory that MLFLOW_TRACKING_URI names; returns the run's id.

    Raises:
        UsageError: MLflow is not installed, or refuses.
    """
    mlflow = _library()
    plain = {name: value for name, value in model.items() if isinstance(value, str | int | float | bool)}
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run() as run:
            mlflow.log_params({**plain, **model.get("parameters", {})})
            mlflow.log_metrics({name: value for name, value in found.items() if value is not None})
            for path in files:
                mlflow.log_artifact(str(path))
            return str(run.info.run_id)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UsageError(f"MLflow cannot track the training: {str(error).partition(chr(10))[0]}") from None


def _library() -> Any:
    try:
        import mlflow  # noqa: PLC0415 (an extra, slow to import, and asked for by few)
    except ImportError:
        raise UsageError("tracking needs MLflow; install it: pip install 'peerwatch[mlflow]'") from None
    return mlflow
