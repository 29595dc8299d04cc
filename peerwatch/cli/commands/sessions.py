"""`peerwatch sessions`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from peerwatch.cli.options import DIRECTORY, FILE, parameters_of
from peerwatch.errors import UsageError

if TYPE_CHECKING:
    from peerwatch.sessions.predictor import SessionModel
    from peerwatch.sessions.workflow import JudgedSessions

LABEL = click.option("--label", metavar="COLUMN", help="The column that is 1 in anomalous sessions, 0 in others.")
ALLOW_LEAK = click.option("--allow-leak", is_flag=True, help="Compute figures from leaking data; they say nothing.")
UNSEEN = click.option(
    "--unseen-users", is_flag=True, help="Judge only sessions of users that were not in the training data."
)
METRICS = click.option("--metrics", type=FILE, metavar="FILE", help="Also write the figures as JSON.")
PICTURES = click.option("--pictures", type=DIRECTORY, metavar="DIR", help="Also draw pictures into DIR.")
FORCE = click.option("--force", is_flag=True, help="Overwrite existing files.")
OWN_PAST = {"auto": None, "on": True, "off": False}


@click.group()
def sessions() -> None:
    """Find anomalies in web and mobile sessions with trained models.

    A table has a row for each session: events, seconds, amounts, device, browser, city, user. docs/sessions.md lists
    the columns. Everything needs the extra `learn`: pip install 'peerwatch[learn]'
    """


@sessions.command("train")
@click.argument("table", type=FILE, metavar="TRAIN.csv")
@LABEL
@click.option("--model", default="hist_gradient_boosting", show_default=True, metavar="NAME",
              help="The kind of model; `peerwatch sessions models` lists them.")  # fmt: skip
@click.option("--expect", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
              help="Share of anomalies in production. Default: that of TRAIN.csv.")  # fmt: skip
@click.option("--contamination", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05,
              show_default=True, metavar="SHARE", help="Without labels: the share of TRAIN.csv to flag.")  # fmt: skip
@click.option("--threshold", default="f1", show_default=True, metavar="RULE",
              help="f1, share, recall=0.95, or costs=20: a miss costs as much as 20 false alarms.")  # fmt: skip
@click.option("--own-past", type=click.Choice([*OWN_PAST]), default="auto", show_default=True,
              help="Compare sessions with their user's past; auto: if it helps on unseen sessions.")  # fmt: skip
@click.option("--without", multiple=True, metavar="NAME",
              help="Leave out a column, a feature or a group of features; repeatable.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the model; repeatable.")
@click.option("--search", type=click.IntRange(0), default=0, metavar="N", help="Try N random settings; take the best.")
@click.option("--hold-out", type=click.FloatRange(0, 0.9), default=0.0, metavar="SHARE",
              help="Leave out this share of the users, and judge their sessions.")  # fmt: skip
@click.option("--test", type=FILE, metavar="TEST.csv", help="Also judge this table.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same model.")
@click.option("--save", type=FILE, metavar="MODEL", help="Write the model to this file.")
@ALLOW_LEAK
@UNSEEN
@METRICS
@PICTURES
@FORCE
@click.option("--mlflow", "experiment", metavar="EXPERIMENT", help="Track the training with MLflow.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def sessions_train(table: Path, *, label: str | None, test: Path | None, save: Path | None, **options: Any) -> None:
    """Train a model on the sessions in TRAIN.csv.

    First it is checked whether the data leaks. Then the model is fitted, its threshold is calibrated on sessions that
    it has not seen, and figures show how well it does on those, on users held out, and on TEST.csv.

    \b
    peerwatch sessions train train.csv --label label --expect 0.05 --save model.skops
    peerwatch sessions train train.csv --label label --model random_forest --threshold recall=0.95 --test test.csv
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    if test is not None and label is None:
        raise UsageError("--test compares verdicts with labels; name their column with --label")
    if options["hold_out"] and label is None:
        raise UsageError("--hold-out compares verdicts with labels; name their column with --label")
    given = click.get_current_context().get_parameter_source("contamination")
    if label is not None and given is ParameterSource.COMMANDLINE:
        raise UsageError(
            "--contamination is for sessions without labels; with --label leave it out, or see --threshold"
        )
    parameters = parameters_of(options["settings"])
    _check_extra()
    from peerwatch.cli.console import Console  # noqa: PLC0415 (--help and mistakes answer at once)
    from peerwatch.sessions import tracking, workflow  # noqa: PLC0415
    from peerwatch.sessions.threshold import ThresholdRule  # noqa: PLC0415
    from peerwatch.sessions.training import TrainingOrder  # noqa: PLC0415

    if options["experiment"] is not None:
        tracking.check_tracking()
    if save is not None:
        workflow.check_target(save)
    if options["metrics"] is not None:
        workflow.check_directory(options["metrics"])
    with workflow.usage_errors():
        order = TrainingOrder(
            model=options["model"], expect=options["expect"], contamination=options["contamination"],
            threshold=ThresholdRule.parsed(options["threshold"]), own_past=OWN_PAST[options["own_past"]],
            parameters=parameters, search=options["search"], seed=options["seed"],
        )  # fmt: skip
    request = workflow.SessionTraining(
        table,
        label,
        order,
        options["without"],
        options["hold_out"],
        test,
        options["unseen_users"],
        options["allow_leak"],
    )
    console = Console(quiet=options["quiet"], bar=True)
    study = workflow.train(request, console)
    _tell(study.told)
    files = _shown(study.model, study.judged, options)
    if save is not None:
        study.model.save(save)
        click.echo(save, err=True)
        files.append(save)
    if options["experiment"] is not None:
        last = workflow.plain_numbers(study.judged[-1].figures())
        run = tracking.track(options["experiment"], study.model.get_model_info(), last, files)
        click.echo(f"MLflow run {run}", err=True)


@sessions.command("evaluate")
@click.argument("model", type=FILE)
@click.argument("table", type=FILE, metavar="TEST.csv")
@click.option(
    "--label", required=True, metavar="COLUMN", help="The column that is 1 in anomalous sessions, 0 in others."
)
@ALLOW_LEAK
@UNSEEN
@METRICS
@PICTURES
@FORCE
def sessions_evaluate(
    model: Path, table: Path, *, label: str, allow_leak: bool, unseen_users: bool, **options: Any
) -> None:
    """Measure how well a MODEL finds the anomalies in TEST.csv.

    Sessions that the model was trained on are refused: figures from them say nothing.

    \b
    peerwatch sessions evaluate model.skops test.csv --label label --unseen-users
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    _check_extra()
    from peerwatch.sessions import workflow  # noqa: PLC0415
    from peerwatch.sessions.predictor import SessionModel  # noqa: PLC0415

    loaded = SessionModel.load(model)
    judged, told = workflow.evaluate(loaded, table, label, unseen_users=unseen_users, allow_leak=allow_leak)
    _tell(told)
    _shown(loaded, [judged], options)


@sessions.command("predict")
@click.argument("model", type=FILE)
@click.argument("table", type=FILE, metavar="NEW.csv")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write the verdicts there. Default: standard output.")
@FORCE
def sessions_predict(model: Path, table: Path, *, output: Path | None, force: bool) -> None:
    """Judge the sessions in NEW.csv with a MODEL.

    A verdict a line: session_id, is_anomaly, probability, confidence and, for flagged sessions, the three strongest
    reasons. Rows that cannot be judged go to OUTPUT.rejects.csv with their line and the reason.

    \b
    peerwatch sessions predict model.skops new.csv --output predictions.csv
    """  # noqa: D301 (likewise)
    _check_extra()
    from peerwatch.readable import shown  # noqa: PLC0415
    from peerwatch.sessions import workflow  # noqa: PLC0415
    from peerwatch.sessions.predictor import SessionModel, predictions, write_bad_rows, write_text  # noqa: PLC0415

    rejects = output.with_name(f"{output.stem}.rejects.csv") if output is not None else None
    for path in (output, rejects):
        if path is not None and path.exists() and not force:
            raise UsageError(f"{shown(path)} exists; name another file, or add --force")
    scores, told = workflow.predict(SessionModel.load(model), table)
    _tell(told)
    if output is None:
        click.echo(predictions(scores), nl=False)
    else:
        write_text(predictions(scores), output)
        if scores.table.bad and rejects is not None:
            write_bad_rows(scores.table.bad, rejects)
    click.echo(f"{int(scores.flagged.sum()):,} of {len(scores.table):,} sessions flagged", err=True)


@sessions.command("follow")
@click.argument("model", type=FILE)
@click.argument("log", metavar="LOG")
@click.argument("output", metavar="OUTPUT")
@click.option("--state", type=DIRECTORY, metavar="DIR", help="Keep a checkpoint in DIR, and continue from it.")
@click.option("--idle-exit", type=click.FloatRange(0), metavar="SECONDS",
              help="Stop after SECONDS without new data; 0: at the end of LOG.")  # fmt: skip
@click.option("--reset", is_flag=True, help="Forget the checkpoint, and begin anew.")
@FORCE
@click.option("-q", "--quiet", is_flag=True, help="Show no summary.")
def sessions_follow(model: Path, log: str, output: str, *, quiet: bool, **options: Any) -> None:
    """Judge the sessions of LOG as it grows, and write those that are flagged to OUTPUT.

    LOG has a JSON object a line, with the columns as keys; it is followed through rotations. OUTPUT gets the flagged
    lines with probability, confidence and reasons added; OUTPUT.rejects.json gets the lines that are no sessions. Each
    may be a URL, as of `peerwatch run`. With --state each verdict is there exactly once, however often it is killed.

    \b
    peerwatch sessions follow model.skops sessions.json flagged.json --state sessions-state
    """  # noqa: D301 (likewise)
    _check_extra()
    import anyio  # noqa: PLC0415

    from peerwatch.sessions.follow import FollowOrder, follow  # noqa: PLC0415

    judged = anyio.run(follow, FollowOrder(model, log, output, **options), _warn)
    if not quiet:
        click.echo(
            f"{judged.sessions:,} sessions, {judged.flagged:,} flagged, {judged.rejected:,} lines rejected", err=True
        )


@sessions.command("info")
@click.argument("model", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sessions_info(model: Path, *, as_json: bool) -> None:
    """Describe a MODEL: what it is, how it was trained, its columns and features."""
    _check_extra()
    import msgspec  # noqa: PLC0415

    from peerwatch.sessions.features import describe  # noqa: PLC0415
    from peerwatch.sessions.predictor import SessionModel  # noqa: PLC0415

    info = SessionModel.load(model).get_model_info()
    if as_json:
        click.echo(msgspec.json.encode(info))
        return
    about = describe()
    for name, value in info.items():
        if name == "features":
            click.echo(f"{name:<23}{len(value)}")
            for feature in value:
                click.echo(f"  {feature:<36}{about.get(feature, 'as the table has it')}")
        else:
            plain = ", ".join(map(str, value)) if isinstance(value, list) else value
            click.echo(f"{name:<23}{plain if plain not in ('', None) else '-'}")


@sessions.command("models")
def sessions_models() -> None:
    """List the kinds of models."""
    _check_extra()
    from peerwatch.sessions.models import SESSION_MODELS  # noqa: PLC0415

    for name, kind in SESSION_MODELS.items():
        click.echo(f"{name:<24}{kind.about}")


@sessions.command("features")
def sessions_features() -> None:
    """List the features, and what each means."""
    from peerwatch.sessions.features import GROUPS, describe  # noqa: PLC0415 (numpy is slow to import)

    for name, about in describe().items():
        click.echo(f"{name:<36}{GROUPS[name]:<13}{about}")


@sessions.command("generate")
@click.argument("path", type=FILE, metavar="FILE")
@click.option("--rows", type=click.IntRange(1), default=5_000, show_default=True, help="Sessions.")
@click.option("--anomalies", type=click.FloatRange(0, 0.5), default=0.04, show_default=True, metavar="SHARE",
              help="Share of the sessions that are anomalous.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--users", type=click.IntRange(2), help="Users. Default: one for every 25 sessions.")
@click.option("--users-seed", type=click.IntRange(0), default=1, show_default=True,
              help="Seed of the users: with the same, two files are of the same users.")  # fmt: skip
@FORCE
def sessions_generate(path: Path, *, force: bool, **options: Any) -> None:
    """Write synthetic sessions in which an anomaly looks like a heavy session of a stranger.

    Only the habits of its user give it away: a model that looks at sessions alone finds few of them without many false
    alarms. A FILE whose name ends in .json gets a JSON object a line, without labels; any other is CSV.
    """
    from peerwatch.sessions.generator import SessionOrder, write_sessions  # noqa: PLC0415

    write_sessions(path, SessionOrder(**options), force=force)
    click.echo(path)


@sessions.command("benchmark")
@click.argument("directory", type=DIRECTORY, required=False)
@click.option("--only", multiple=True, metavar="NAME", help="Only this part; repeatable.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same figures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sessions_benchmark(directory: Path | None, *, only: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Measure the models, and remake the published table.

    Without DIRECTORY only generated sessions are used. With it, the tables that are there: balanced_40.csv and
    behavior_4.csv (the published protocol), multifeature_40.csv and multifeature_5.csv, balabit_sessions.csv.

    \b
    peerwatch sessions benchmark data/
    peerwatch sessions benchmark --only generated
    """  # noqa: D301 (likewise)
    _check_extra()
    import msgspec  # noqa: PLC0415

    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.sessions import benchmark  # noqa: PLC0415

    found = benchmark.run(directory, only, seed, Console(quiet=False, bar=True))
    click.echo(msgspec.json.encode(found) if as_json else benchmark.as_markdown(found))


def _tell(told: list[str]) -> None:
    for sentence in told:
        _warn(sentence)


def _warn(sentence: str) -> None:
    click.echo(f"peerwatch: {sentence}", err=True)


def _shown(model: "SessionModel", judged: "list[JudgedSessions]", options: dict[str, Any]) -> list[Path]:
    """Print the figures, write those and pictures that are asked for; returns the files."""
    from peerwatch.sessions import report  # noqa: PLC0415

    found = {each.name: each.figures() for each in judged}
    for name, figures in found.items():
        if figures is not None:
            click.echo(f"{name}: {report.as_text(figures)}")
    if not any(found.values()):
        flagged = int(judged[-1].scores.flagged.sum())
        click.echo(f"{judged[-1].name}: {flagged:,} of {len(judged[-1].scores.score):,} sessions flagged")
    files: list[Path] = []
    if options["metrics"] is not None:
        report.write_metrics(options["metrics"], found)
        files.append(options["metrics"])
    if options["pictures"] is not None:
        from peerwatch.sessions.pictures import draw  # noqa: PLC0415

        files += draw(options["pictures"], model, judged[-1].scores, judged[-1].labels, force=options["force"])
    for path in files:
        click.echo(path, err=True)
    return files


def _check_extra() -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    for module, library in (("sklearn", "scikit-learn"), ("skops", "skops")):
        if find_spec(module) is None:
            raise UsageError(f"sessions need {library}; install it: pip install 'peerwatch[learn]'")
