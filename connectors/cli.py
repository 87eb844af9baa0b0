"""The command `preceptor`. Each command loads what it works with itself, so that `--help` answers at once."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from connectors.progress import RichProgress, Terminal, spelled
from loop.acquisitions import Acquisition
from loop.errors import PreceptorError

if TYPE_CHECKING:
    from connectors.wiring import Project

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a large language model into a small one while people keep the large one honest.",
    epilog="A campaign: init, ingest, doctor, run, review, run, export.",
)
review_app = typer.Typer(no_args_is_help=True, help="The Label Studio side by hand.")
teacher_app = typer.Typer(no_args_is_help=True, help="The recorded teacher.")
checks_app = typer.Typer(no_args_is_help=True, help="What the checks are worth.")
student_app = typer.Typer(no_args_is_help=True, help="The student, to take home or to serve.")
versions_app = typer.Typer(help="Versions of the dataset: list them, name one, see what one holds.")
users_app = typer.Typer(no_args_is_help=True, help="Who may use the pages of `preceptor serve`, and who did what.")
holdout_app = typer.Typer(no_args_is_help=True, help="Make a holdout where no gold answers exist.")
app.add_typer(review_app, name="review")
app.add_typer(teacher_app, name="teacher")
app.add_typer(checks_app, name="checks")
app.add_typer(holdout_app, name="holdout")
app.add_typer(student_app, name="student")
app.add_typer(versions_app, name="versions")
app.add_typer(users_app, name="users")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The project's config file.")]
RunName = Annotated[str | None, typer.Option("--run", help="Name of the run, where there are several.")]
OfRound = Annotated[
    int | None, typer.Option("--round", min=1, help="The student in force after this round; default: now.")
]
CONFIG = Path("config.toml")
ACQUISITIONS: tuple[str, ...] = get_args(Acquisition)
INTERRUPTED = 130
"""The exit code that typer makes of Ctrl-C, in the place of a KeyboardInterrupt."""

console = Terminal(highlight=False, soft_wrap=True)
stderr = Terminal(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command; what a user can mend is told in a sentence, without a traceback."""
    try:
        app()
    except PreceptorError as error:
        stderr.print(f"error: {error}", markup=False)
        raise SystemExit(1) from error
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            stderr.print(
                "stopped; what is stored is kept: called again, `run`, `predict` and `simulate` go on from there"
            )
        raise


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show on stderr what happens: stages, requests, charges.")
    ] = False,
) -> None:
    """Before any command."""
    if verbose:
        from connectors import logs  # noqa: PLC0415

        logs.to_terminal()


def _project(config: Path, run: str | None) -> "Project":
    from connectors import logs  # noqa: PLC0415
    from connectors.wiring import Project  # noqa: PLC0415

    project = Project(config, RichProgress(console), run=run)
    log = project.config.run.log
    logs.to_file(None if log is None else project.home / log)
    return project


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder of the new project.")] = Path()) -> None:
    """Write a commented config.toml for a new project."""
    from connectors.template import write_template  # noqa: PLC0415

    console.print(f"wrote {write_template(folder)}; next: preceptor ingest YOUR.jsonl", markup=False)


@app.command()
def doctor(
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask teacher and judge about eight tiny things each; paid like any request.")
    ] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Check config, database, student, teacher, Label Studio and budget; one line each with the cure.

    Many servers answer 200 and silently drop what they do not know. With --probe their replies are looked at, and what
    is found is stored and used: is a JSON schema held, are log-probabilities there, does n = 2 give two choices, do
    samples differ, does a seed repeat one, are batches listed?
    """
    from connectors.doctor import diagnose  # noqa: PLC0415

    findings = diagnose(config, lambda: _project(config, run), probe=probe)
    for finding in findings:
        console.print(f"{'ok  ' if finding.fine else 'FAIL'} {finding.part}: {finding.text}", markup=False)
    raise typer.Exit(0 if all(finding.fine for finding in findings) else 1)


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="JSONL, CSV, Parquet files or Hugging Face dataset folders.")],
    split: Annotated[
        Literal["pool", "holdout", "seed"] | None,
        typer.Option(help="Where all rows go; without it, a hash of the key decides."),
    ] = None,
    rationales: Annotated[bool, typer.Option("--rationales", help="The files hold existing replies.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Take items in; bad rows are named by line and skipped, nothing is taken twice."""
    from connectors import sources  # noqa: PLC0415
    from connectors.measurements import duplicates_text, seed_duplicates_text  # noqa: PLC0415
    from loop.records import Split  # noqa: PLC0415
    from loop.stages.contamination import look  # noqa: PLC0415

    project = _project(config, run)
    report: sources.Ingested | sources.IngestedRationales
    if rationales:
        report = sources.ingest_rationales(paths, project.store, task=project.config.task, folder=project.folder)
    else:
        report = sources.ingest(
            paths,
            project.store,
            split=None if split is None else Split(split),
            pool=project.config.pool,
            task=project.config.task,
            progress=project.progress,
        )
    for line in report.bad:
        stderr.print(line, markup=False)
    console.print(report.summary(), markup=False)
    query = project.config.query
    if (found := look(project.store, query)).pairs:
        console.print(duplicates_text(found, query), markup=False)
    if (found := look(project.store, query, Split.SEED)).pairs:
        console.print(seed_duplicates_text(found, query), markup=False)
    raise typer.Exit(1 if report.bad else 0)


@app.command()
def plan(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """What the next round will cost, how far the budgets reach, and how many audits a certificate needs.

    Nothing is spent. Before the first reply only the worst case is known; `run --pilot 20` learns prices.
    """
    from connectors.plan import plan as planned  # noqa: PLC0415
    from connectors.plan import plan_text  # noqa: PLC0415

    found = planned(_project(config, run))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.print("\n".join(plan_text(found)), markup=False)


@app.command(name="run")
def run_command(
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds in all; default: run.rounds.")] = None,
    pilot: Annotated[
        int | None, typer.Option(min=1, help="First try this many random items through all stages, then forecast.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for reviewers, or a server that is down, and go on.")
    ] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Run or resume the campaign.

    It ends after run.rounds, or before where a further round is not worth it: minutes are gone, or what the settings
    stopping.* and budget.usd_per_point say. --rounds goes on in spite of that.

    Exit codes: 0 finished, 3 waits for reviewers, 4 budget spent, 1 error, 2 wrong usage, 130 Ctrl-C.
    """
    from connectors import campaign, inspection, stops  # noqa: PLC0415

    project = _project(config, run)
    wanted = rounds or (1 if pilot else project.config.run.rounds)
    explicit = rounds is not None or pilot is not None
    ended = campaign.run(project, rounds_wanted=wanted, wait=wait, pilot=pilot, to_the_end=explicit)
    if pilot and ended.outcome is campaign.Outcome.FINISHED:
        console.print(inspection.forecast(project), markup=False)
    if ended.outcome is not campaign.Outcome.WAITS:
        found = stops.grounds_now(project.store, project.config.run.name, project.config)
        for line in stops.stopping_text(stops.stopping_figures(found)):
            console.print(line, markup=False)
    console.print(ended.text, markup=False)
    raise typer.Exit(ended.outcome.value)


@app.command(name="simulate")
def simulate_command(
    acquisition: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(ACQUISITIONS)}; may be given several times; default: the first and the last."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Campaigns for each function, with seeds 0, 1, ...")] = 3,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each campaign; default: run.rounds.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Campaigns side by side.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, with every campaign's rounds.")] = False,
    config: ConfigPath = CONFIG,
) -> None:
    """Compare acquisition functions: whole campaigns with a recorded teacher and a simulated reviewer.

    Needs a holdout, teacher.recorded, and simulated_reviewer.truth: a JSONL file, a pool item a line, with its "key",
    its "answer" (text or number), "steps" (a list of texts) and, if need be, "wrong" (those steps of recorded replies
    that are wrong). docs/how-to/acquisition.md explains each function and what the table says.

    What is done is kept; call it again to go on or to add seeds. Of its students only the cards and figures stay. Exit
    code 1 where a campaign failed; the others are done all the same.
    """
    from connectors import simulate  # noqa: PLC0415

    names = acquisition or ["explanation_divergence", "random"]
    if unknown := [name for name in names if name not in ACQUISITIONS]:
        raise typer.BadParameter(f"{', '.join(unknown)}; known: {', '.join(ACQUISITIONS)}")
    project = _project(config, None)
    project.progress = RichProgress(stderr)  # apart from the figures, which a program may read
    cells = [simulate.Cell(name, seed) for seed in range(seeds) for name in dict.fromkeys(names)]
    found = simulate.simulate(project, cells, rounds=rounds or project.config.run.rounds, jobs=jobs)
    if found.results:
        simulate.draw(simulate.all_results(found.folder), found.folder / "curves.svg")
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    elif found.results:
        console.print("simulated reviewer, recorded teacher", style="yellow")
        console.print(simulate.summary_text(simulate.summary(found.compared)))
        console.print(f"cells and curves.svg: {found.folder}", markup=False, soft_wrap=True)
    found.examine()


@app.command(name="replay")
def replay_command(
    acquisition: Annotated[
        str | None, typer.Option(help="The acquisition function that would have picked; default: the config's.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="How many items would have been asked; default: as many as were.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Risk below which a reply would have passed; default: acceptance.silver_risk.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """What the campaign would have asked and passed with other settings, as far as its record can say.

    Nothing is asked or trained. Rounds pick anew among the candidates that they scored; of picks that were never asked
    no reply is known, so their number is told and figures are of the others alone, with their interval.
    """
    from connectors import replay  # noqa: PLC0415

    project = _project(config, run)
    name = acquisition or project.config.query.acquisition
    found = replay.replay(project, acquisition=name, budget=budget, threshold=threshold)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.print("\n".join(replay.replay_text(found)), markup=False)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="The contract for programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Where the run stands."""
    from connectors.status import status as state  # noqa: PLC0415
    from connectors.status import status_text  # noqa: PLC0415

    project = _project(config, run)
    found = state(project.store, project.config.run.name, project.config)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.print(status_text(found))


@app.command()
def history(
    key: str,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """All about one item: scores, prompts, replies, flags, verdicts, decision, versions, checkpoints and exports."""
    from connectors.history import history as past  # noqa: PLC0415
    from connectors.history import history_text  # noqa: PLC0415

    project = _project(config, run)
    found = past(project.store, project.config.run.name, key)
    if as_json:
        typer.echo(spelled(json.dumps(found, indent=1, ensure_ascii=False, default=str)))
    else:
        console.print(history_text(found), markup=False)


@app.command()
def prompt(key: str, config: ConfigPath = CONFIG, run: RunName = None) -> None:
    """Show the exact request for one item and its worst-case price; nothing is spent."""
    from connectors.inspection import show_prompt  # noqa: PLC0415

    typer.echo(spelled(json.dumps(show_prompt(_project(config, run), key), indent=1, ensure_ascii=False)))


@app.command()
def export(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Where to write; with --diff two exports.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="jsonl, parquet, hf, chat, trl, dpo, prm, sharegpt, label-studio, csv or croissant."
        ),
    ] = "jsonl",
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows with e.g. decision=gold, 'risk<0.1', reviewer=reviewer-1; may be repeated."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="Write nothing unless e.g. 'error<=0.05', 'agreement>=0.6', leaks=0; may be repeated."),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Not what is decided now, but a version by its name or the beginning of its hash.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="Call the version that is written so, like v1; a name never moves to another one.")
    ] = "",
    diff: Annotated[bool, typer.Option("--diff", help="Say what changed between two exports; nothing is written.")] = (
        False
    ),
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Write the cleaned dataset with provenance, a card and what is known of its quality.

    Rows can be chosen by decision, risk, reviewer, round, domain, teacher_model and key. Bars can be set on bound,
    error, agreement, step_wrong, duplicates and leaks; what is measured with an interval has to clear them with all
    of it. docs/export.md explains each.
    """
    from connectors import export_diff, exports  # noqa: PLC0415

    if len(folders) != 1 + diff:
        expected = "--diff takes two exports" if diff else "one folder is expected"
        raise typer.BadParameter(f"{expected}, {len(folders)} were named", param_hint="FOLDER")
    if diff:
        for line in export_diff.difference(*folders).lines():
            console.print(line, markup=False)
        return
    project = _project(config, run)
    wanted = exports.Wanted(form, tuple(where or ()), tuple(require or ()), version, name, project.config.export)
    exported = exports.export(project.store, project.config.run.name, folders[0], wanted)
    console.print(exported.summary(), markup=False)


@versions_app.callback(invoke_without_command=True)
def versions_list(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """List the versions of the dataset: the gold and silver rows at each training, export or naming, by a hash.

    The hash is of what the rows say, in order, so the same rows have the same one. `versions name v1` names what is
    decided now; `export DIR --version v1` writes it, also after decisions have changed.
    """
    from connectors import versions  # noqa: PLC0415

    if context.invoked_subcommand is not None:
        return
    project = _project(config, run)
    found = versions.listed(project.store, project.config.run.name)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    elif found:
        console.print(versions.list_table(found))
    else:
        console.print("no version yet; a training, an export or `preceptor versions name NAME` makes one", markup=False)


@versions_app.command("name")
def versions_name(
    name: Annotated[str, typer.Argument(help="The name, like v1; it never moves to another version.")],
    version: Annotated[str, typer.Argument(help="The beginning of an earlier version's hash; default: now.")] = "",
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Name what is gold or silver now, or an earlier version."""
    from connectors import versions  # noqa: PLC0415

    project = _project(config, run)
    found = versions.name(project.store, project.config.run.name, name, version)
    console.print(f"{found.name} is version {found.hash}", markup=False)


@versions_app.command("show")
def versions_show(
    version: Annotated[str, typer.Argument(help="A name or the beginning of a hash.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs; names every row and its decision.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Show one version: its rows, who learned them, where they were written, and what was decided anew since."""
    from connectors import versions  # noqa: PLC0415

    project = _project(config, run)
    found = versions.shown(project.store, project.config.run.name, version)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console.print("\n".join(versions.shown_text(found)), markup=False)


@app.command()
def certificate(
    issue: Annotated[
        bool, typer.Option("--issue", help="Give the export's promise now, and release the audits held for it as gold.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """What is promised of the rows that nobody reviewed, and how many audits are missing.

    Half of the audits (review.certify_share) are held back: nothing learns from them until a promise rests on them. A
    certified threshold releases them by itself; --issue does so for the rows accepted so far. Decide when to export
    before you look at the audits: a promise that is tried until it pleases is none.
    """
    from connectors.accounts import noted  # noqa: PLC0415
    from connectors.promises import promises, promises_text  # noqa: PLC0415
    from loop import certification  # noqa: PLC0415
    from loop.store import rounds  # noqa: PLC0415

    project = _project(config, run)
    store, name = project.store, project.config.run.name
    current = rounds.current(store, name)
    if current is None:
        raise PreceptorError(f"run {name} has no round yet; `preceptor run` starts one")
    with noted(store, "certificate --issue", f"run {name}") if issue else nullcontext():
        released = certification.issue(store, current, project.config)[1] if issue else None
    found = promises(store, name, project.config) or {}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for line in promises_text(found):
        console.print(line, markup=False)
    if released is not None:
        console.print(f"issued; {released} audits are released", markup=False)


@app.command()
def report(
    out: Annotated[Path | None, typer.Option(help="File to write; default: report.html in the run's folder.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for a summary in Markdown.")] = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Write the dashboard's pages as one HTML file that needs nothing else.

    With --markdown a summary is written instead, for a pull request or a chat; with --out as well, both are.
    """
    from connectors.report_page import write_report, write_summary  # noqa: PLC0415

    project = _project(config, run)
    if markdown is not None:
        write_summary(project.store, project.config.run.name, project.config, markdown)
        console.print(f"wrote {markdown}", markup=False)
    if markdown is None or out is not None:
        path = out or project.folder / "report.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(project.store, project.config.run.name, project.config, path)
        console.print(f"wrote {path}", markup=False)


@app.command(name="recall")
def recall_command(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    reviewer: Annotated[str, typer.Option(help="Whom; as `review status` or the board names them.")] = "",
    teacher_model: Annotated[str, typer.Option(help="Whose replies; as rows and `history` name the model.")] = "",
    prompt_hash: Annotated[
        str,
        typer.Option("--prompt", metavar="HASH", help="Replies to this prompt; the beginning of its hash is enough."),
    ] = "",
    since: Annotated[
        str | None, typer.Option(help="From which moment on, like 2026-11-25 or 2026-11-25T14:30; UTC.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept. Default: what the reviewer is accused of.")] = None,
    apply: Annotated[bool, typer.Option("--apply", "--yes", help="Do it; without this it is only shown.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Take back what a reviewer said, a model replied, came of a prompt or was decided since a moment.

    What several options name is doubted only where all of them hold. Says which rows rest on it, and which versions,
    students and exports hold them. With --apply the rows are undecided again: where a reviewer is doubted, the
    verdicts count no longer and people review the items again; where replies or decisions are, the items may be asked
    again. Nothing is deleted.
    """
    from connectors import recalls  # noqa: PLC0415
    from connectors.accounts import noted  # noqa: PLC0415
    from loop.store.tainted import Grounds  # noqa: PLC0415

    try:
        start = None if since is None else recalls.moment(since)
    except ValueError as error:
        raise typer.BadParameter(
            f"{since}: not a date; expected one like 2026-11-25 or 2026-11-25T14:30", param_hint="--since"
        ) from error
    grounds = Grounds(reviewer, teacher_model, prompt_hash, start)
    project = _project(config, run)
    doubted = ", ".join(each for each in (project.config.run.name, reviewer, teacher_model, prompt_hash, since) if each)
    with noted(project.store, "recall", f"run {doubted}") if apply else nullcontext():
        found = recalls.recall(project, grounds, reason=reason, sure=apply)
    for line in recalls.recall_summary(found, sure=apply):
        console.print(line, markup=False)


@app.command()
def forget(
    key: Annotated[str, typer.Argument(help="The item's key.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this it is only shown.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Remove an item from everywhere, in all runs of the database, and look whether anything of it is left.

    Charges stay, without its key. Exports and students that hold it are named, not changed. Cut off, call it again.
    Exit code 1 where something is left.
    """
    from connectors.accounts import noted  # noqa: PLC0415
    from connectors.forget import Forgetting  # noqa: PLC0415

    project = _project(config, run)
    forgetting = Forgetting(project, key)
    for line in forgetting.preview():
        console.print(line, markup=False)
    if not apply:
        console.print("nothing was changed; --apply does it", markup=False)
        return
    with noted(project.store, "forget", "an item"):  # which one is forgotten, too
        found = forgetting.apply()
    for line in found.lines(forgetting.plan):
        console.print(line, markup=False)
    raise typer.Exit(1 if found.places else 0)


@app.command()
def answer(
    question: Annotated[str, typer.Argument(help="What is asked.")],
    context: Annotated[str, typer.Option(help="What the question is about.")] = "",
    choice: Annotated[list[str] | None, typer.Option(help="A choice; may be given several times, in order.")] = None,
    number: OfRound = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Let the student answer a question, with its explanation."""
    from connectors import students  # noqa: PLC0415

    project = _project(config, run)
    which = students.trained(project, number)
    item = students.asked(question, which.config.task, context, choice or ())
    console.print(students.answer_question(project, item, which), markup=False)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV, Parquet file or Hugging Face dataset folder.")],
    out: Annotated[Path | None, typer.Option(help="JSONL to write; default: FILE.answers.jsonl.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Ask the teacher about rows that the student is less sure of than this."),
    ] = None,
    number: OfRound = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Let the student answer a whole file: a line for each row, in their order.

    Ended early, call it again: it goes on where it stopped. A row that cannot be asked gets a line with its `error`.
    Where rows have an `answer`, the accuracy is told. With --threshold the teacher answers the rows of which the
    student is not sure, the least sure first, within what is left of budget.usd; each row says who answered it.
    """
    from connectors import predicting, students  # noqa: PLC0415

    project = _project(config, run)
    found = predicting.predict(project, students.trained(project, number), file, out, threshold)
    for line in predicting.bad_rows(found.file):
        stderr.print(line, markup=False)
    console.print(found.summary(), markup=False)
    raise typer.Exit(1 if found.bad else 0)


@student_app.command("export")
def student_export(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    form: Annotated[str, typer.Option("--format", help="transformers or openvino.")] = "transformers",
    number: OfRound = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Write the student as a folder that others load without Preceptor, with a card that says how to ask it."""
    from connectors import handover, students  # noqa: PLC0415

    project = _project(config, run)
    handover.refuse_folder(folder, form)
    console.print(handover.export_student(project, students.trained(project, number), folder, form), markup=False)


@student_app.command("retrain")
def student_retrain(
    number: Annotated[
        int | None, typer.Option("--round", min=1, help="The student that this round trained; default: the newest.")
    ] = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Train a student again whose folder was lost or damaged, from what was decided when it was trained."""
    from connectors import retraining  # noqa: PLC0415

    console.print(retraining.retrain(_project(config, run), number), markup=False)


@student_app.command("serve")
def student_serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8096,
    token_env: Annotated[
        str, typer.Option(help="Variable that holds the token; where it is set, every request must show it.")
    ] = "PRECEPTOR_STUDENT_TOKEN",
    number: Annotated[
        int | None, typer.Option("--round", min=0, help="As elsewhere; 0: the untrained student.")
    ] = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Let the student answer the OpenAI chat protocol, for programs that speak it.

    Checkpoints of the run can be loaded beside it while it serves, as into vLLM.
    """
    from connectors import student_server, students  # noqa: PLC0415

    project = _project(config, run)
    which = None if number == 0 else students.trained(project, number)
    student_server.serve(project, which, host=host, port=port, token_env=token_env)


@holdout_app.command("label")
def holdout_label(
    count: Annotated[int, typer.Argument(min=1, help="How many random pool items people should answer.")],
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Send random pool items, question only, to reviewers; call it again to take their answers as the holdout."""
    from connectors.holdout import label  # noqa: PLC0415

    console.print(label(_project(config, run), count), markup=False)


@checks_app.command("audit")
def checks_audit(
    data: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file of recorded rationales instead of the run; see above."),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="With --data: only rationales by this model.")] = None,
    limit: Annotated[int, typer.Option(min=20, help="At most so many rationales, drawn at random.")] = 400,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Find out which checks read the steps and which only the answer; nothing is asked, spent or stored.

    A check can look clever and yet only notice that an odd answer is stated; it then misses right answers with wrong
    steps. So every check looks three times at rationales that are known to be right or wrong: as they are, with the
    true answer put in its place ("forced"), and with the answer taken out ("removed"), in the last step too.

    The table gives for each check how many wrong and right rationales it flags, and its AUROC in each of the three: how
    likely a wrong rationale is doubted more than a right one (1 perfect, 0.5 chance). "The answer only": at chance once
    the answer is forced, and once it is removed. "How the answer fits the rest": at chance once it is removed. "The
    steps": at least half of what it tells is left both ways. Checks that learn from verdicts learn on other rationales
    than they are audited on.

    Without --data: rationales that people judged in this run, on items whose right answer they settled. With --data: a
    JSONL file (.gz too), one object a line:
    {"question", "choices" or null, "gold", "teacher": [{"rationale", "answer", "correct", "model"?}]}.
    """
    from connectors import checks_audit as audits  # noqa: PLC0415
    from loop.config import ChecksConfig  # noqa: PLC0415

    if data is None:
        project = _project(config, run)
        known, checks = audits.of_run(project, limit=limit), project.config.checks
    else:
        (known, bad), checks = audits.of_file(data, teacher=teacher, limit=limit), ChecksConfig()
        for line in bad:
            stderr.print(line, markup=False)
    found = audits.run_audit(known, checks, RichProgress(stderr))
    if as_json:
        typer.echo(json.dumps(audits.as_json(known, found), indent=1))
    else:
        console.print(audits.as_text(known, found))


@review_app.command("up")
def review_up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 picks a free one.")] = 8099,
    config: ConfigPath = CONFIG,
) -> None:
    """Install (once) and start a local Label Studio on loopback, in an environment of its own."""
    from connectors import studio_server  # noqa: PLC0415
    from connectors.wiring import cache_folder  # noqa: PLC0415

    project = _project(config, None)
    studio_server.install(cache_folder(), project.progress.say)
    studio = studio_server.start(project.studio_folder, cache=cache_folder(), port=port, say=project.progress.say)
    console.print(
        f"Label Studio runs at {studio.url} (user {studio.user}, password {studio.password}); "
        "`preceptor review down` ends it",
        markup=False,
    )


@review_app.command("down")
def review_down(config: ConfigPath = CONFIG) -> None:
    """End the local Label Studio; its data stays."""
    from connectors import studio_server  # noqa: PLC0415

    studio = studio_server.running(_project(config, None).studio_folder)
    if studio is not None:
        studio_server.stop(studio)
    console.print("Label Studio is down", markup=False)


@review_app.command("push")
def review_push(config: ConfigPath = CONFIG, run: RunName = None) -> None:
    """Put the round's open reviews on the board; what stands there is left alone."""
    from connectors.accounts import noted  # noqa: PLC0415
    from connectors.reviewing import push_reviews  # noqa: PLC0415

    project = _project(config, run)
    with noted(project.store, "review push", f"run {project.config.run.name}"):
        console.print(push_reviews(project), markup=False)


@review_app.command("pull")
def review_pull(
    whole: Annotated[
        bool, typer.Option("--whole", help="List all tasks, to notice now what was deleted in Label Studio.")
    ] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Store the verdicts that reviewers gave or changed since the last time; decisions that they bear on follow."""
    from connectors.accounts import noted  # noqa: PLC0415
    from connectors.pulling import pull  # noqa: PLC0415

    project = _project(config, run)
    with noted(project.store, "review pull", f"run {project.config.run.name}"):
        console.print(str(pull(project, whole=whole)), markup=False)


@review_app.command("invite")
def review_invite(
    emails: Annotated[list[str], typer.Argument(help="E-mail addresses.")],
    link: Annotated[
        bool, typer.Option("--link", help="Only print the invite link; people choose their own password.")
    ] = False,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Make accounts on Label Studio, and print what to send to each person."""
    from connectors.reviewing import invite  # noqa: PLC0415

    for line in invite(_project(config, run), emails, link_only=link):
        console.print(line, markup=False)


@review_app.command("practice")
def review_practice(config: ConfigPath = CONFIG) -> None:
    """Put five tasks with known verdicts on the board for practice; call it again to see how each reviewer did."""
    from connectors.practice import practice  # noqa: PLC0415

    console.print(practice(_project(config, None)), markup=False)


@review_app.command("status")
def review_status(config: ConfigPath = CONFIG, run: RunName = None) -> None:
    """How many reviews are open and done, and how far each reviewer can be trusted."""
    from connectors.reviewing import review_state  # noqa: PLC0415

    console.print(review_state(_project(config, run)), markup=False)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless you change it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8097,
    register: Annotated[
        bool, typer.Option("--register", help="Have the Label Studio projects of the run call this server.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Address by which Label Studio reaches this server, where it is another.")
    ] = None,
    config: ConfigPath = CONFIG,
    run: RunName = None,
) -> None:
    """Show the dashboard, and take verdicts as they are given: Label Studio calls, and `run --wait` goes on.

    Another --host than loopback needs accounts (`preceptor users add`) or a token in the variable that
    serve.token_env names; with accounts, people log in, and may do what their role allows. Verdicts are taken where the
    variable that review.webhook_secret_env names holds a secret. Calls get lost, so they are also pulled every
    review.poll_seconds. With review.student_answers, open reviews show what the student answers now, and Label
    Studio may ask this server for predictions.
    """
    from connectors import web  # noqa: PLC0415

    web.serve(_project(config, run), host=host, port=port, registers=register, url=url)


@users_app.command("add")
def users_add(
    name: Annotated[str, typer.Argument(help="What the person logs in as: a-z 0-9 . _ @ + -")],
    role: Annotated[Literal["viewer", "lead", "owner"], typer.Option(help="What they may do.")],
    config: ConfigPath = CONFIG,
) -> None:
    """Make an account for the pages of `preceptor serve`; the password is asked for, or read from standard input.

    A viewer sees the pages. A review lead may also put open reviews on the board, take verdicts in and take back what a
    reviewer said. An owner may also see who has an account and who did what, and remove accounts. Once there is an
    account, nobody sees anything without one, also on loopback, but programs with the token.
    """
    from connectors import accounts  # noqa: PLC0415
    from loop.records import Role  # noqa: PLC0415

    accounts.add(_project(config, None).store, name, Role(role), accounts.asked_password())
    console.print(f"{name} may log in as {role}", markup=False)


@users_app.command("password")
def users_password(
    name: Annotated[str, typer.Argument(help="Whose.")],
    config: ConfigPath = CONFIG,
) -> None:
    """Give an account another password, asked for or read from standard input; who is logged in no longer is."""
    from connectors import accounts  # noqa: PLC0415

    accounts.change_password(_project(config, None).store, name, accounts.asked_password())
    console.print(f"{name} has another password", markup=False)


@users_app.command("role")
def users_role(
    name: Annotated[str, typer.Argument(help="Whose.")],
    role: Annotated[Literal["viewer", "lead", "owner"], typer.Argument(help="What they may do from now on.")],
    config: ConfigPath = CONFIG,
) -> None:
    """Give an account another role; who is logged in with it has it from the next page on."""
    from connectors import accounts  # noqa: PLC0415
    from loop.records import Role  # noqa: PLC0415

    accounts.change_role(_project(config, None).store, name, Role(role))
    console.print(f"{name} is {role} now", markup=False)


@users_app.command("remove")
def users_remove(
    name: Annotated[str, typer.Argument(help="Whose.")],
    config: ConfigPath = CONFIG,
) -> None:
    """Remove an account; who is logged in with it no longer is. What they did stays in the log."""
    from connectors import accounts  # noqa: PLC0415

    accounts.remove(_project(config, None).store, name)
    console.print(f"{name} has no account any more", markup=False)


@users_app.command("list")
def users_list(config: ConfigPath = CONFIG) -> None:
    """Who has an account, as what."""
    from connectors.accounts import account_lines  # noqa: PLC0415

    for line in account_lines(_project(config, None).store):
        console.print(line, markup=False)


@users_app.command("log")
def users_log(
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs, an object a line.")] = False,
    config: ConfigPath = CONFIG,
) -> None:
    """Who did what, on the pages and by commands, the newest last.

    Noted are logging in and out, changes of accounts, and what changes what counts: `review push`, `review pull`,
    `recall --apply`, `forget --apply`, `certificate --issue`. A deed is noted before it is done, and once more, as
    failed, where it came to nothing.
    """
    from connectors.accounts import deed_line  # noqa: PLC0415
    from loop.store import accounts  # noqa: PLC0415

    for deed in reversed(accounts.deeds(_project(config, None).store, limit)):
        if as_json:
            typer.echo(deed.model_dump_json())
        else:
            console.print(deed_line(deed), markup=False)


@teacher_app.command("serve")
def teacher_serve(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSONL of recorded completions.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 picks a free one.")] = 8098,
    faults: Annotated[Path | None, typer.Option(exists=True, help="JSON of faults to show, for tests.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Refuse requests with another key.")] = None,
) -> None:
    """Answer the OpenAI chat protocol on loopback from a file of recorded completions."""
    from connectors.recorded_teacher import serve  # noqa: PLC0415

    serve(file, port=port, faults=faults, api_key=api_key, say=lambda said: console.print(said, markup=False))
