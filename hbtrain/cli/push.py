"""`hbtrain push`: uploads the model of a run to the hub."""

from __future__ import annotations

from rich.text import Text

from hbtrain.cli.outputs import said_aside
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.table import facts


def push(
    run: str,
    *,
    repo: str,
    licence: str | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> None:
    """Upload a run's model to the Hugging Face hub: `hbtrain push runs/quickstart-1a2b3c4d --repo my-team/retriever`.

    What is sent is the model's folder. Its card then has the results in the hub's form (model-index), the data it was
    trained on with their licences, and the fingerprint of its batches. The token is that of `hf auth login`, or
    $HF_TOKEN. A repository that holds anything but an earlier state of this run is left as it is.

    Parameters
    ----------
    run
        The folder, or s3:// URI, of a finished run.
    repo
        The repository, ORG/NAME; it is made if it is not there.
    licence
        Of the model, as the hub writes it, such as apache-2.0; by default the card claims none.
    private
        Make the repository one for its owner only.
    dry_run
        Show everything that would be sent, and send nothing.
    """
    from hbtrain.hub.uploading import check_name, upload
    from hbtrain.reporting.text import byte_size
    from hbtrain.runs.publishing import publication

    check_name(repo)
    made = publication(run, repo, licence)
    sizes = made.sizes()
    console = TextConsole()
    console.print(facts((Text(path, "bold"), f"{size:,} bytes") for path, size in sizes.items()))
    total = f"{len(sizes)} files, {byte_size(sum(sizes.values()))}"
    if dry_run:
        console.print(f"\nREADME.md:\n\n{made.card}", soft_wrap=True, markup=False, highlight=False)
        kind = "private" if private else "public"
        console.print(f"nothing was sent; without --dry-run: {total} to {repo}, {kind} if it is made", soft_wrap=True)
        return
    said_aside(f"sending {total} to {repo}")
    address = upload(repo, made.files, made.is_same, private=private, message=f"Upload of {made.run} by hbtrain")
    console.print(f"\npushed   {address}", soft_wrap=True)
